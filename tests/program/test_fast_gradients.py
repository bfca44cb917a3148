"""`fast_gradients`: another way to write the same derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import spartax as sx
from tests import leaves

pytestmark = pytest.mark.core
NHWC = ("NHWC", "HWIO", "NHWC")
CASES = {
    "plain": ({"window_strides": (1, 1), "padding": "SAME", "dimension_numbers": NHWC}, (8, 7, 4), (3, 3, 4, 6)),
    "strided": ({"window_strides": (2, 3), "padding": "SAME", "dimension_numbers": NHWC}, (8, 7, 4), (3, 3, 4, 6)),
    "valid, even kernel": (
        {"window_strides": (2, 1), "padding": "VALID", "dimension_numbers": NHWC},
        (9, 6, 4),
        (4, 2, 4, 6),
    ),
    "ragged padding, dilation": (
        {"window_strides": (1, 2), "padding": ((3, 0), (1, 4)), "rhs_dilation": (2, 3), "dimension_numbers": NHWC},
        (9, 8, 4),
        (3, 2, 4, 6),
    ),
    "groups": (
        {"window_strides": (2, 2), "padding": "SAME", "feature_group_count": 2, "dimension_numbers": NHWC},
        (8, 8, 4),
        (3, 3, 2, 6),
    ),
    "depthwise": (
        {"window_strides": (1, 1), "padding": "SAME", "feature_group_count": 4, "dimension_numbers": NHWC},
        (6, 6, 4),
        (3, 3, 1, 8),
    ),
    "transposed": (
        {"window_strides": (1, 1), "padding": ((2, 1), (0, 3)), "lhs_dilation": (2, 2), "dimension_numbers": NHWC},
        (5, 5, 4),
        (3, 3, 4, 6),
    ),
    "output first": (
        {"window_strides": (2, 1), "padding": "SAME", "dimension_numbers": ("NCHW", "OIHW", "NCHW")},
        (4, 7, 6),
        (6, 4, 3, 3),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_equals_the_gradient_of_jax(name):
    options, x_shape, w_shape = CASES[name]
    x, w = leaves.normal(2, *x_shape), leaves.normal(*w_shape, seed=1)

    def fn(w, x):
        return jnp.sum(jnp.sin(lax.conv_general_dilated(x, w, **options)))

    ours = jax.jit(jax.value_and_grad(sx.fast_gradients(fn), argnums=(0, 1)))(w, x)
    plain = jax.jit(jax.value_and_grad(fn, argnums=(0, 1)))(w, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), ours, plain)


def test_the_flipped_kernel_is_written_out_inside_loops():
    """The barrier is what keeps XLA from folding the flip back; it must survive jit, scan and remat around it."""
    options, x_shape, w_shape = CASES["plain"]
    x, w = leaves.normal(2, *x_shape), leaves.normal(*w_shape, seed=1)[..., :4]

    def fn(x):
        def body(c, _):
            c = jax.jit(jax.checkpoint(lambda c: jnp.tanh(lax.conv_general_dilated(c, w, **options))))(c)
            return c, None

        return jnp.sum(lax.scan(body, x, None, length=2)[0])

    text = str(jax.make_jaxpr(jax.grad(sx.fast_gradients(fn)))(x))
    assert "optimization_barrier" in text
    np.testing.assert_allclose(jax.grad(sx.fast_gradients(fn))(x), jax.grad(fn)(x), rtol=1e-4, atol=1e-5)


def test_compressed_params_inside():
    options, x_shape, w_shape = CASES["plain"]
    x, w = leaves.normal(2, *x_shape), leaves.lowrank(w_shape, 2)
    fn = lambda w, x: jnp.sum(jnp.sin(lax.conv_general_dilated(x, w, **options)))  # noqa: E731
    ours = jax.grad(lambda x: sx.fast_gradients(lambda x: sx.compressed(fn)(w, x))(x))(x)
    plain = jax.grad(lambda x: fn(sx.dense(w), x))(x)
    np.testing.assert_allclose(ours, plain, rtol=1e-3, atol=1e-4)


def test_custom_derivatives_are_kept():
    """relu at exactly zero has the derivative 0 by its own rule."""
    gradient = jax.grad(lambda x: jnp.sum(sx.fast_gradients(jax.nn.relu)(x)))(jnp.zeros(3))
    np.testing.assert_array_equal(gradient, np.zeros(3))
