"""The plain way: one dense matrix."""

import jax.numpy as jnp
from jax import lax

from spartax.kernels.lowrank_residual_matmul.bases import Base
from spartax.records import Array


def matmul(x: Array, base: Base, u: Array, v: Array) -> Array:
    """`x (W + U V)`, everything in float32 at least."""
    wide = lambda a: a.astype(jnp.promote_types(a.dtype, jnp.float32))  # noqa: E731
    product = lambda a, b: jnp.matmul(wide(a), wide(b), precision=lax.Precision.HIGHEST)  # noqa: E731
    return product(x, wide(base.dense(x.shape[1])) + product(u, v))
