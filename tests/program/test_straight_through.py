"""`straight_through`: the same values, the derivative of the identity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spartax as sx

pytestmark = pytest.mark.core
X = jnp.array([-1.6, -0.4, 0.3, 2.7])


@pytest.mark.parametrize(
    "fn",
    [jnp.round, jnp.floor, jnp.ceil, jnp.sign, lambda x: jnp.clip(x, -1, 1), lambda x: jax.lax.clamp(-1.0, x, 1.0)],
    ids=["round", "floor", "ceil", "sign", "clip", "clamp"],
)
def test_steps_pass_the_gradient(fn):
    np.testing.assert_array_equal(sx.straight_through(fn)(X), fn(X))
    gradient = jax.grad(lambda x: jnp.sum(jnp.arange(4.0) * sx.straight_through(fn)(x)))(X)
    np.testing.assert_array_equal(gradient, np.arange(4.0))


def test_relu_keeps_its_own_derivative():
    gradient = jax.grad(lambda x: jnp.sum(sx.straight_through(jax.nn.relu)(x)))(X)
    np.testing.assert_array_equal(gradient, [0, 0, 1, 1])


def test_fake_quantization_inside_loops():
    """8-bit activations with an absmax scale: by autodiff only the scale has a gradient, straight through all of it."""

    def quantized(x):
        scale = jnp.max(jnp.abs(x)) / 127
        return jnp.clip(jnp.round(x / scale), -127, 127) * scale

    def fn(x):
        return jax.lax.scan(lambda c, _: (jnp.tanh(jax.jit(quantized)(c)), None), x, None, length=2)[0].sum()

    def smooth(x):
        return jnp.tanh(jnp.tanh(x)).sum()

    ours = jax.grad(sx.straight_through(fn))(X)
    np.testing.assert_allclose(ours, jax.grad(smooth)(X), rtol=0.05, atol=0.01)
    assert np.abs(jax.grad(fn)(X)[:3]).max() < 1e-6


def test_integer_results_are_left_alone():
    fn = lambda x: jnp.round(x) * jnp.clip(jnp.arange(4), 1, 2)  # noqa: E731
    gradient = jax.grad(lambda x: jnp.sum(sx.straight_through(fn)(x)))(X)
    np.testing.assert_array_equal(gradient, [1, 1, 2, 2])
