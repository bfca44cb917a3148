"""Shared by the tests of factorizations: factors of one matrix `[I, O]`."""

import jax
import jax.numpy as jnp

from spartax.records import Layout


def split(factorization, matrix, rank, **statistics):
    """(left, right) of a matrix whose rows are the inputs."""
    given = {need: value if need == "key" else jnp.asarray(value, jnp.float32) for need, value in statistics.items()}
    build = jax.jit(lambda m, s: factorization.build(m, Layout((0,), (1,)), {"": rank}, s))
    leaf = build(jnp.asarray(matrix, jnp.float32), given)
    return leaf.left, leaf.right
