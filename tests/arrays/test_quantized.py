"""Formats whose codes are not integers, and zero points between codes, where products are of integers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spartax as sx
from spartax import quantize
from spartax.arrays import QuantizedInputs
from spartax.kernels.quantized_matmul import Form, quantized_matmul
from spartax.records import Evidence, Layout
from tests import plugs

GIVEN = Evidence({"w": Layout((0,), (1,))})
WEIGHT = jnp.asarray(np.random.default_rng(0).normal(size=(32, 6)) + 0.5, jnp.float32)
X = np.random.default_rng(1).normal(size=(2, 32)).astype(np.float32)
GRIDS = {
    "float zero": quantize.integer(4, symmetric=False, zero_dtype="float16"),
    "nf4": quantize.nf4(),
    "binary": quantize.binary(),
    "power of two": quantize.power_of_two(),
    "mxfp8": quantize.mx("e5m2"),
}


def leaf(name):
    return plugs.run(quantize.quantize(GRIDS[name]), {"w": WEIGHT}, GIVEN)[0]["w"]


@pytest.mark.parametrize("name", GRIDS)
def test_int8_activations_meet_what_codes_stand_for(name):
    """Each row of x is rounded to 127 steps of its largest entry, and meets the dense weight."""
    weight = leaf(name)
    step = np.abs(X).max(1, keepdims=True) / np.float32(127)
    want = np.rint(X / step) * step @ np.asarray(plugs.dense(weight))
    asked = QuantizedInputs(weight)
    np.testing.assert_allclose(sx.compressed(lambda w, x: x @ w)(asked, X), want, rtol=1e-4, atol=1e-4)


def test_float64_is_not_multiplied_in_float32():
    rng = np.random.default_rng(3)
    with jax.enable_x64(True):
        scale = jnp.asarray(rng.uniform(0.5, 1.5, (1, 6)))
        weight = sx.Quantized(jnp.asarray(rng.integers(-127, 128, (32, 6)), jnp.int8), scale, kind="float64")
        want = X.astype(np.float64) @ (np.asarray(weight.codes, np.float64) * np.asarray(scale))
        with sx.kernels("xla"):
            got = sx.compressed(lambda w, x: x @ w)(weight, jnp.asarray(X, jnp.float64))
        assert got.dtype == jnp.float64
        np.testing.assert_allclose(got, want, rtol=1e-13, atol=1e-11)


def test_zero_points_between_codes_in_products_of_few_rows():
    """Two rows take the way of integer digits where zero points are integers; these are not."""
    rng = np.random.default_rng(2)
    codes, zero = rng.integers(-8, 8, (6, 32)).astype(np.int8), rng.uniform(-3, 3, (6, 1)).astype(np.float32)
    scale = rng.uniform(0.5, 1.5, (6, 1)).astype(np.float32)
    run = jax.jit(quantized_matmul, static_argnames=("form", "path"))
    for path in ("reference", "xla"):
        got = run(X, jnp.asarray(codes), scale, zero, form=Form(32), path=path)
        np.testing.assert_allclose(got, X @ ((codes - zero) * scale).T, rtol=1e-4, atol=1e-4)
