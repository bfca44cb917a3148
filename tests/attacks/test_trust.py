"""Checks of gradient trust: healthy networks pass, each kind of masking is named."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spartax as sx
from spartax.attacks.trust import square_wins, trust

KEY = jax.random.key(0)
X = jax.random.uniform(jax.random.key(1), (24, 4, 4, 1))
FIRST, SECOND = jax.random.normal(jax.random.key(2), (16, 32)), jax.random.normal(jax.random.key(3), (32, 5))


def smooth(x):
    return jnp.tanh(x.reshape(x.shape[0], -1) @ FIRST * 0.3) @ SECOND


def rounded(x):
    hidden = jnp.tanh(x.reshape(x.shape[0], -1) @ FIRST * 0.3)
    return jnp.round(hidden * 8) / 8 @ SECOND


Y = jnp.argmax(smooth(X), axis=1).astype(jnp.int32)


def test_a_smooth_network_passes():
    found = trust(KEY, smooth, X, Y, eps=0.1)
    assert found.warnings == ()
    assert found.agreement > 0.95
    assert (found.randomized, found.zero_gradient_clean, found.probabilities) == (0.0, 0.0, False)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_agreement_is_one_for_a_linear_network(norm):
    linear = lambda x: x.reshape(x.shape[0], -1) @ FIRST[:, :2]  # noqa: E731
    found = trust(KEY, linear, X, Y % 2, eps=0.2, norm=norm)
    np.testing.assert_allclose(found.agreement, 1.0, atol=1e-3)


def test_rounding_is_named_and_straight_through_mends_it():
    found = trust(KEY, rounded, X, Y, eps=0.2)
    assert found.zero_gradient_clean == 1.0
    assert found.agreement < 0.1
    assert any(w.startswith("zero gradient: 100.0%") for w in found.warnings)
    assert any("straight_through" in w for w in found.warnings)
    mended = trust(KEY, sx.straight_through(rounded), X, Y, eps=0.2)
    assert mended.warnings == ()
    assert mended.agreement > 0.8


def test_probabilities_are_named():
    found = trust(KEY, lambda x: jax.nn.softmax(smooth(x)), X, Y, eps=0.1)
    assert found.probabilities
    assert any(w.startswith("probabilities") for w in found.warnings)


def test_hidden_state_is_named():
    calls = itertools.count()

    def shaky(x):
        noise = jax.pure_callback(lambda: np.float32(next(calls)), jax.ShapeDtypeStruct((), jnp.float32))
        return smooth(x) + 0.3 * jnp.sin(noise * jnp.arange(5.0))

    def with_gradient(x):
        return smooth(x) + jax.lax.stop_gradient(shaky(jax.lax.stop_gradient(x)) - smooth(x))

    found = trust(KEY, with_gradient, X, Y, eps=0.1)
    assert found.randomized > 1e-2
    assert any(w.startswith("randomized") for w in found.warnings)


def test_square_that_wins_is_said():
    assert square_wins({"apgd-ce": 0.9, "square": 0.8})[0].startswith("square: a black-box attack broke 10.00")
    assert square_wins({"apgd-ce": 0.9, "square": 0.8995}) == ()
    assert square_wins({"square": 0.5}) == ()
