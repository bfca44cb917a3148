"""Products of rounded activations: integers by NumPy, scales that are shared as said, gradients straight through."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spartax as sx
from spartax.kernels.uniform import Uniform
from tests import leaves

pytestmark = pytest.mark.core
NUMBERS = ("NHWC", "HWIO", "NHWC")


def rounded(x, bits, symmetric, axes):
    """(codes, scale, zero) in NumPy, one scale for all entries along these axes."""
    x = np.asarray(x, np.float32)
    least, most = (1 - 2 ** (bits - 1) if symmetric else -(2 ** (bits - 1))), 2 ** (bits - 1) - 1
    low, high = (np.minimum(x.min(axes, keepdims=True), 0), np.maximum(x.max(axes, keepdims=True), 0))
    scale = np.maximum(-low, high) / np.float32(most) if symmetric else (high - low) / np.float32(most - least)
    zero = np.zeros_like(scale) if symmetric else least + np.round(-low / scale)
    return np.clip(np.round(x / scale) + zero, least, most).astype(np.int64), scale, zero.astype(np.int64)


def oracle(leaf, x, per):
    """`x @ w`: exact sums of products of integers, then the scales."""
    codes, scale, zero = rounded(x, leaf.bits, leaf.symmetric, -1 if per == "token" else (0, 1))
    own = np.asarray(sx.dense(leaf.weight.codes), np.int64)
    own = own - (0 if leaf.weight.zero is None else np.asarray(leaf.weight.zero, np.int64))
    return (codes - zero) @ own * (scale * np.float64(leaf.weight.scale))


@pytest.mark.parametrize("per", ["token", "tensor"])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("bits", "inner", "zero"), [(8, 8, False), (8, 8, True), (4, 4, False), (3, 8, False)])
def test_integer_products(bits, inner, zero, symmetric, per):
    leaf = sx.QuantizedInputs(leaves.quantized((12, 10), inner, zero=zero), bits=bits, symmetric=symmetric, per=per)
    if inner < 8:
        leaf = dataclasses.replace(leaf, weight=leaves.quantized_outputs_first((12, 10)))
    x = leaves.normal(7, 12, seed=4) * jnp.arange(1, 8)[:, None] + 0.5
    want = oracle(leaf, x, per)
    product = sx.compressed(lambda w, x: x @ w)
    plan = sx.explain(lambda w, x: x @ w, leaf, x)[""][0]
    assert f"{inner}-bit integer product [xla]" in plan
    np.testing.assert_allclose(product(leaf, x), want, atol=2e-6 * np.abs(want).max())
    np.testing.assert_allclose(sx.matmul(leaf, x), want, atol=2e-6 * np.abs(want).max())


def test_weight_on_the_left_and_two_free_axes():
    leaf, x = sx.QuantizedInputs(leaves.quantized((12, 10)), symmetric=False), leaves.normal(3, 2, 12, seed=4)
    want = oracle(leaf, x.reshape(6, 12), "token")
    close = lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6 * np.abs(want).max())  # noqa: E731
    close(sx.compressed(lambda w, x: jnp.einsum("io,bci->obc", w, x))(leaf, x), want.T.reshape(10, 3, 2))
    close(sx.compressed(lambda w, x: jnp.einsum("bci,io->bco", x, w))(leaf, x), want.reshape(3, 2, 10))


@pytest.mark.parametrize("taps", [1, 3])
def test_an_image_has_one_scale(taps):
    """Both where the kernel is a matrix of codes and where it is made dense."""
    leaf = sx.QuantizedInputs(leaves.quantized((taps, taps, 4, 6)), symmetric=False)
    x = leaves.normal(3, 5, 5, 4, seed=4) * jnp.arange(1, 4)[:, None, None, None]
    codes, scale, zero = rounded(x, 8, False, (1, 2, 3))
    convolve = lambda w, x: jax.lax.conv_general_dilated(  # noqa: E731
        x, w, (2, 1), "VALID", dimension_numbers=NUMBERS, precision="highest"
    )
    want = convolve(sx.dense(leaf), jnp.asarray((codes - zero) * scale, jnp.float32))
    kernel = sx.explain(convolve, leaf, x)[""][0]
    assert ("integer product" in kernel) == (taps == 1)
    np.testing.assert_allclose(sx.compressed(convolve)(leaf, x), want, atol=1e-5 * float(jnp.abs(want).max()))


def test_padding_around_asymmetric_codes_is_the_number_zero():
    leaf, x = sx.QuantizedInputs(leaves.quantized((1, 1, 4, 6)), symmetric=False), leaves.normal(1, 2, 2, 4) + 3
    convolve = lambda w, x: jax.lax.conv_general_dilated(x, w, (1, 1), ((1, 1), (1, 1)), dimension_numbers=NUMBERS)  # noqa: E731
    out = sx.compressed(convolve)(leaf, x)
    assert not np.asarray(out[:, 0]).any()
    assert np.abs(out[:, 1, 1]).max() > 1


def test_static_scales_of_the_exact_range_are_the_dynamic_ones_of_the_tensor():
    weight, x = leaves.masked((12, 10)), leaves.normal(7, 12, seed=4)
    for symmetric in (True, False):
        scale, zero = Uniform(6, symmetric).fit(jnp.min(x), jnp.max(x))
        static = sx.QuantizedInputs(weight, scale, None if zero is None else zero.astype(jnp.int8), 6, symmetric)
        dynamic = sx.QuantizedInputs(weight, None, None, 6, symmetric, "tensor")
        product = sx.compressed(lambda w, x: x @ w)
        np.testing.assert_allclose(product(static, x), product(dynamic, x), atol=1e-5)
        assert np.abs(product(static, x) - product(weight, x)).max() > 1e-3


def test_gradients_of_lsq():
    """Esser et al.: v = -3, -.6, .2, .7, 5 at a step of 0.5, codes -4 to 3."""
    v = jnp.array([[-3.0, -0.6, 0.2, 0.7, 5.0]])

    def total(v, scale):
        leaf = sx.QuantizedInputs(jnp.eye(5), scale, jnp.int8(0), 3, False)
        out = sx.matmul(leaf, v)
        return jnp.sum(out), out

    ((dv, ds), out) = jax.jit(jax.grad(total, (0, 1), has_aux=True))(v, jnp.float32(0.5))
    np.testing.assert_allclose(out, [[-2, -0.5, 0, 0.5, 1.5]])
    np.testing.assert_array_equal(dv, [[0, 1, 1, 1, 0]])
    np.testing.assert_allclose(ds / np.sqrt(5 * 3), -0.4131182235954577, rtol=1e-5)


@pytest.mark.parametrize("static", [True, False])
def test_gradients_through_an_integer_product(static):
    """In the activation those of the weight, cut where it is clipped; in the scales of the weight at the codes."""
    weight, x = leaves.quantized((12, 10)), leaves.normal(7, 12, seed=4)
    leaf = sx.QuantizedInputs(weight, jnp.float32(0.01) if static else None)
    run = sx.compressed(lambda w, x: jnp.sum(jnp.sin(0.01 * (x @ w))))

    def by_scale(s, x):
        return run(dataclasses.replace(leaf, weight=dataclasses.replace(weight, scale=s)), x)

    ds, dx = jax.grad(by_scale, (0, 1))(weight.scale, x)
    scale = np.float32(0.01) if static else np.abs(x).max(1, keepdims=True) / 127
    steps = np.round(np.asarray(x) / scale)
    seen = np.clip(steps, -127, 127) * scale
    g = 0.01 * np.cos(0.01 * seen @ np.asarray(sx.dense(weight)))
    inside = np.abs(steps) <= 127
    assert inside.all() != static
    np.testing.assert_allclose(dx, g @ np.asarray(sx.dense(weight)).T * inside, atol=1e-5)
    codes = np.asarray(weight.codes, np.float32)
    np.testing.assert_allclose(ds, np.sum(g * (seen @ codes), 0, keepdims=True), rtol=1e-4, atol=1e-4)
    tangent = jax.jvp(lambda x: run(leaf, x), (x,), (jnp.ones_like(x),))[1]
    np.testing.assert_allclose(tangent, np.sum(dx), rtol=1e-4)


@pytest.mark.parametrize("static", [True, False])
@pytest.mark.parametrize("symmetric", [True, False])
def test_nan_is_not_hidden_by_codes_and_small_rows_do_not_vanish(static, symmetric):
    scale, zero = (jnp.float32(0.01), None if symmetric else jnp.int8(3)) if static else (None, None)
    leaf = sx.QuantizedInputs(leaves.quantized((12, 10)), scale, zero, symmetric=symmetric)
    x = leaves.normal(4, 12, seed=4).at[1, 3].set(jnp.nan).at[2].mul(1e-36)
    out = np.asarray(sx.compressed(lambda w, x: x @ w)(leaf, x))
    assert np.isnan(out[1]).all()
    assert np.isfinite(out[[0, 2, 3]]).all()
    assert static or out[2].all()


def test_a_token_does_not_see_its_batch_and_a_tensor_does():
    weight, x = leaves.quantized((12, 10)), leaves.normal(4, 12, seed=4).at[3].mul(50)
    run = sx.compressed(lambda w, x: x @ w)
    token, tensor = (sx.QuantizedInputs(weight, per=per) for per in ("token", "tensor"))
    np.testing.assert_array_equal(run(token, x)[:2], run(token, x[:2]))
    assert np.abs(run(tensor, x)[:2] - run(tensor, x[:2])).max() > 0.1


def test_every_layer_of_a_stack_has_its_own_scale_in_scan_and_as_a_batch_axis():
    w, scale = leaves.normal(3, 4, 4), jnp.array([0.1, 0.2, 0.4])
    leaf, x = sx.QuantizedInputs(w, scale, jnp.array([0, 1, -2], jnp.int8), 5, False), leaves.normal(6, 4, seed=3)
    scanned = sx.compressed(lambda w, x: jax.lax.scan(lambda c, w: (c @ w, None), x, w)[0])
    one = lambda x, i: (np.clip(np.round(x / scale[i]) + z[i], -16, 15) - z[i]) * scale[i] @ w[i]  # noqa: E731
    z = (0, 1, -2)
    np.testing.assert_allclose(scanned(leaf, x), one(one(one(x, 0), 1), 2), atol=1e-5)
    heads = leaves.normal(6, 3, 4, seed=5)
    out = sx.compressed(lambda w, x: jnp.einsum("nhd,hde->nhe", x, w))(leaf, heads)
    np.testing.assert_allclose(out, np.stack([one(heads[:, i], i) for i in range(3)], 1), atol=1e-5)


def test_the_rounding_stays_when_a_weight_is_rearranged():
    leaf, x = sx.QuantizedInputs(leaves.masked((12, 10)), bits=2), leaves.normal(7, 10, seed=4)
    fn = lambda w, x: x @ w.T.astype(jnp.float32).reshape(10, 4, 3).reshape(10, 12)  # noqa: E731
    codes, scale, _ = rounded(x, 2, True, -1)
    np.testing.assert_allclose(sx.compressed(fn)(leaf, x), codes * scale @ sx.dense(leaf).T, atol=1e-5)


def test_packing_and_saving_keep_it(tmp_path):
    leaf = leaves.examples((12, 10))["QuantizedInputs static, of Masked"]
    sx.save(tmp_path / "w", {"w": sx.pack(leaf)})
    back = sx.restore(tmp_path / "w")["w"]
    assert isinstance(back.weight, sx.Bitmask)
    np.testing.assert_array_equal(sx.dense(back), sx.dense(leaf))
    assert (back.bits, back.symmetric, float(back.scale), int(back.zero)) == (7, False, np.float32(0.02), 3)
    assert "QuantizedInputs(Bitmask" in sx.summary({"w": back})
