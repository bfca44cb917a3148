"""`fast_gradients`: another way to write the same derivative."""

import functools
import re

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

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


@pytest.mark.parametrize("name", ["ragged padding, dilation", "groups", "depthwise", "output first"])
def test_products_with_the_hessian_are_those_of_jax(name):
    options, x_shape, w_shape = CASES[name]
    x, w, v = leaves.normal(2, *x_shape), leaves.normal(*w_shape, seed=1), leaves.normal(*w_shape, seed=2)

    def fn(w):
        return jnp.sum(jnp.sin(lax.conv_general_dilated(x, w, **options)))

    ours = jax.jit(jax.grad(lambda w: jnp.vdot(jax.grad(sx.fast_gradients(fn))(w), v)))(w)
    plain = jax.jit(lambda w: jax.jvp(jax.grad(fn), (w,), (v,))[1])(w)
    np.testing.assert_allclose(ours, plain, rtol=1e-3, atol=1e-3)


def loops(gradient, *args):
    """Lengths of the loops of its program."""
    return [int(n) for n in re.findall(r"length=(\d+)", str(jax.make_jaxpr(gradient)(*args)))]


@pytest.mark.parametrize(("batch", "turns"), [(16, 1), (19, 2)])  # after those that the sum starts with
@pytest.mark.parametrize("name", ["strided", "groups", "transposed", "output first"])
def test_kernel_gradients_are_summed_by_a_few_examples_at_a_time(name, batch, turns):
    options, x_shape, w_shape = CASES[name]
    x, w = leaves.normal(batch, *x_shape), leaves.normal(*w_shape, seed=1)

    def fn(w):
        return jnp.sum(jnp.sin(lax.conv_general_dilated(x, w, **options)))

    gradient = jax.jit(jax.grad(sx.fast_gradients(fn)))
    np.testing.assert_allclose(gradient(w), jax.grad(fn)(w), rtol=1e-4, atol=1e-3)
    assert loops(jax.grad(sx.fast_gradients(fn)), w) == [turns]


@pytest.mark.parametrize("batch", [64, 1024])
def test_bfloat16_is_summed_in_float32(batch):
    options, x_shape, w_shape = CASES["plain"]
    x, g = (leaves.normal(batch, *s, seed=n).astype(jnp.bfloat16) for n, s in enumerate((x_shape, (8, 7, 6))))
    w = jnp.zeros(w_shape, jnp.bfloat16)

    def fn(w, x=x, g=g):
        return jnp.sum((lax.conv_general_dilated(x, w, **options) * g).astype(jnp.float32))

    ours = jax.grad(sx.fast_gradients(fn))(w).astype(jnp.float32)
    exact = jax.grad(lambda w: fn(w, x.astype(jnp.float32), g.astype(jnp.float32)))(w.astype(jnp.float32))
    assert jnp.linalg.norm(ours - exact) < 2**-8 * jnp.linalg.norm(exact)


def test_inside_shard_map_and_in_a_program_with_an_open_batch():
    options, x_shape, w_shape = CASES["plain"]
    x, w = leaves.normal(32, *x_shape), leaves.normal(*w_shape, seed=1)
    fn = lambda x, w: jnp.sum(jnp.sin(lax.conv_general_dilated(x, w, **options)))  # noqa: E731
    expected = jax.grad(fn, argnums=1)(x, w)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:2])

    def part(x, w):
        return jax.lax.psum(
            jax.grad(sx.fast_gradients(fn), argnums=1)(x, jax.lax.pcast(w, "data", to="varying")), "data"
        )

    split = jax.jit(jax.shard_map(part, mesh=mesh, in_specs=(P("data"), P()), out_specs=P()))
    np.testing.assert_allclose(split(x, w), expected, rtol=1e-4, atol=1e-3)
    (batch,) = jax.export.symbolic_shape("batch")
    open_batch = jax.ShapeDtypeStruct((batch, *x_shape), jnp.float32)
    program = jax.export.export(jax.jit(jax.grad(sx.fast_gradients(fn), argnums=1)))(open_batch, w)
    np.testing.assert_allclose(program.call(x, w), expected, rtol=1e-4, atol=1e-3)


def test_fewer_examples_at_a_time_where_outputs_are_large():
    options, _, w_shape = CASES["plain"]
    w = jax.ShapeDtypeStruct(w_shape, jnp.float32)

    @functools.partial(jax.grad, argnums=1)
    @sx.fast_gradients
    def gradient(x, w):
        return jnp.sum(lax.conv_general_dilated(x, w, **options))

    for side, turns in ((100, 1), (110, 3)):  # six outputs: below and above 2**19 numbers of eight examples
        assert loops(gradient, jax.ShapeDtypeStruct((16, side, side, 4), jnp.float32), w) == [turns]


@pytest.mark.parametrize("axes", ["Auto", "Explicit"])
def test_a_batch_over_devices_stays_there(axes):
    options, x_shape, w_shape = CASES["plain"]
    kind = jax.sharding.AxisType[axes]
    mesh = jax.make_mesh((4,), ("data",), axis_types=(kind,), devices=jax.devices()[:4])
    x, w = leaves.normal(16, *x_shape), leaves.normal(*w_shape, seed=1)
    split, whole = (NamedSharding(mesh, P(*names)) for names in (("data",), ()))
    plain = jax.jit(jax.grad(lambda w, x: jnp.sum(jnp.sin(lax.conv_general_dilated(x, w, **options)))))
    fast = jax.jit(
        jax.grad(sx.fast_gradients(lambda w, x: jnp.sum(jnp.sin(lax.conv_general_dilated(x, w, **options)))))
    )
    with jax.set_mesh(mesh):
        given = jax.device_put(w, whole), jax.device_put(x, split)
        program = fast.lower(*given).compile().as_text()
        np.testing.assert_allclose(fast(*given), plain(w, x), rtol=1e-4, atol=1e-3)
    assert "all-gather" not in program


def test_bfloat16_into_float32():
    """The gradient of JAX itself refuses the two dtypes; a float32 gradient of rounded values is the same."""
    options, x_shape, w_shape = CASES["plain"]
    x, w = (a.astype(jnp.bfloat16) for a in (leaves.normal(2, *x_shape), leaves.normal(*w_shape, seed=1)))

    def fn(x, w, kind=jnp.float32):
        return jnp.sum(jnp.sin(lax.conv_general_dilated(x, w, preferred_element_type=kind, **options)))

    ours = jax.grad(sx.fast_gradients(fn), argnums=(0, 1))(x, w)
    wide = jax.grad(fn, argnums=(0, 1))(x.astype(jnp.float32), w.astype(jnp.float32))
    for a, b in zip(ours, wide):
        assert a.dtype == jnp.bfloat16
        np.testing.assert_allclose(a.astype(jnp.float32), b, rtol=2**-7, atol=1e-4)


@pytest.mark.parametrize("name", ["plain", "groups", "output first"])
def test_every_convolution_in_a_loop_is_one_of_the_fast_routine(name):
    """Channels last and no kernel reversed, forward and in both gradients, through jit, scan and remat."""
    options, x_shape, w_shape = CASES[name]
    x, w = leaves.normal(2, *x_shape), leaves.normal(*w_shape, seed=1)

    def fn(w, x):
        step = jax.jit(jax.checkpoint(lambda w: jnp.sum(jnp.tanh(lax.conv_general_dilated(x, w, **options)))))
        return lax.scan(lambda c, _: (c + step(w), None), 0.0, length=2)[0]

    program = jax.jit(jax.grad(sx.fast_gradients(fn), argnums=(0, 1))).lower(w, x).as_text()
    convolutions = [line for line in program.splitlines() if "stablehlo.convolution" in line]
    assert len(convolutions) >= 3
    for line in convolutions:
        assert "dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]" in line
        assert "reverse" not in line or "[false, false]" in line
    assert "optimization_barrier" in program  # or XLA folds the flip back
    ours, plain = (jax.grad(f, argnums=(0, 1))(w, x) for f in (sx.fast_gradients(fn), fn))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), ours, plain)


def test_other_platforms_keep_the_function(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert sx.fast_gradients(jax.nn.relu) is jax.nn.relu


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
