"""What every calibration obeys."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spartax as sx
from spartax import catalog, quantize
from spartax.quantize.grids import Calibration, Part
from spartax.records import Evidence
from tests import plugs

WEIGHTS, GIVEN = plugs.draw(), plugs.evidence()
GRIDS = {
    "int8": quantize.integer(8),
    "int4 grouped": quantize.integer(4, 4),
    "int3 asymmetric tensor": quantize.integer(3, channel=False, symmetric=False, scale_dtype="float16"),
}


@pytest.fixture(params=catalog.names(quantize.calibrations))
def calibration(request):
    return catalog.load(quantize.calibrations, request.param)()


@pytest.fixture(params=list(GRIDS))
def grid(request):
    return GRIDS[request.param]


@pytest.mark.parametrize("path", ["dense", "conv"])
def test_scales_fit_the_grid(calibration, grid, path):
    assert isinstance(calibration, Calibration)
    assert calibration.needs <= set(Evidence._fields)
    part = Part(path, GIVEN.layouts[path], GIVEN)
    scale, zero = calibration.fit(WEIGHTS[path], grid, part)
    assert scale.shape == grid.scale_shape(WEIGHTS[path].shape, part.layout)
    assert scale.dtype == jnp.dtype(grid.scale_dtype)
    assert (np.asarray(scale) > 0).all()
    assert np.isfinite(np.asarray(scale, np.float32)).all()
    assert (zero is None) == grid.symmetric
    if zero is not None:
        assert zero.dtype == jnp.int8
        assert zero.shape == scale.shape
        assert grid.codes[0] <= np.asarray(zero).min()
        assert np.asarray(zero).max() <= grid.codes[1]


def test_zeros_stay_zeros(calibration, grid):
    part = Part("dense", GIVEN.layouts["dense"], GIVEN)
    weight = np.array(WEIGHTS["dense"])
    weight[5], weight[:, 3] = 0.0, 0.0
    scales = calibration.fit(jnp.asarray(weight), grid, part)
    codes = quantize.nearest().round(jnp.asarray(weight), scales, grid, part)
    dense = np.asarray(plugs.dense(sx.Quantized(codes, scales.scale, scales.zero)))
    assert np.isfinite(dense).all()
    assert not dense[weight == 0].any()


def test_jit_is_the_same(calibration, grid):
    part = Part("dense", GIVEN.layouts["dense"], GIVEN)
    fit = lambda w: calibration.fit(w, grid, part)  # noqa: E731
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3)  # noqa: E731
    jax.tree.map(close, jax.jit(fit)(WEIGHTS["dense"]), fit(WEIGHTS["dense"]))
