"""Values of one network, gradients of another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from spartax.attacks import bpda

WEIGHTS = jnp.asarray(np.random.default_rng(0).normal(size=(12, 3)), jnp.float32)
X = np.random.default_rng(1).random((4, 2, 2, 3)).astype(np.float32)


def stairs(w, x):
    return jnp.round(5 * x.reshape(len(x), -1) @ w) / 5


def parent(w, x):
    return jnp.tanh(x.reshape(len(x), -1) @ w)


def test_values_are_of_the_first_and_derivatives_of_the_second():
    both = bpda(Partial(stairs, WEIGHTS), Partial(parent, 2 * WEIGHTS))

    @jax.jit
    def look(f, x):
        logits, pull = jax.vjp(f, x)
        return logits, pull(jnp.ones_like(logits))[0]

    logits, gradient = look(both, X)
    np.testing.assert_array_equal(logits, jax.jit(stairs)(WEIGHTS, X))
    expected = np.asarray(
        look(Partial(parent, 2 * WEIGHTS), X)[1]
    )  # sums of both signs round at the size of the largest
    np.testing.assert_allclose(gradient, expected, atol=1e-6 * np.abs(expected).max())
    assert not np.any(look(Partial(stairs, WEIGHTS), X)[1])
    assert len(jax.tree.leaves(both)) == 2  # the weights of both are arguments


def test_networks_that_draw_are_refused():
    plain = Partial(parent, WEIGHTS)
    with pytest.raises(ValueError, match="surrogate must not draw"):
        bpda(plain, lambda x, key: x)
    with pytest.raises(ValueError, match="logits_fn must not draw"):
        bpda(lambda x, key: x, plain)
