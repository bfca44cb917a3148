"""What every rounding obeys."""

import jax.numpy as jnp
import numpy as np
import pytest

import spartax as sx
from spartax import catalog, quantize
from spartax.quantize.grids import Part, Rounding
from spartax.records import Evidence
from tests import plugs

WEIGHTS, GIVEN = plugs.draw(), plugs.evidence()
GRIDS = {
    "int8": quantize.integer(8),
    "int4 grouped": quantize.integer(4, 4),
    "int3 asymmetric": quantize.integer(3, symmetric=False),
}


@pytest.fixture(params=catalog.names(quantize.roundings))
def rounding(request):
    return catalog.load(quantize.roundings, request.param)()


@pytest.fixture(params=list(GRIDS))
def grid(request):
    return GRIDS[request.param]


def encode(rounding, grid, weight, path):
    part = Part(path, GIVEN.layouts[path], GIVEN)
    scales = quantize.absmax().fit(weight, grid, part)
    return scales, rounding.round(weight, scales, grid, part)


@pytest.mark.parametrize("path", ["dense", "conv"])
def test_codes_are_inside_the_grid(rounding, grid, path):
    assert isinstance(rounding, Rounding)
    assert rounding.needs <= set(Evidence._fields)
    _, codes = encode(rounding, grid, WEIGHTS[path], path)
    assert codes.dtype == jnp.int8
    assert codes.shape == WEIGHTS[path].shape
    least, most = grid.codes
    assert least <= np.asarray(codes).min()
    assert np.asarray(codes).max() <= most


def test_what_is_on_the_grid_stays_there(rounding, grid):
    """A weight that is quantized already is reproduced, zero included."""
    scales, codes = encode(rounding, grid, WEIGHTS["dense"], "dense")
    near = plugs.dense(sx.Quantized(codes, scales.scale, scales.zero))
    part = Part("dense", GIVEN.layouts["dense"], GIVEN)
    np.testing.assert_array_equal(rounding.round(near, scales, grid, part), codes)
    zeros = rounding.round(jnp.asarray(np.zeros(near.shape, np.float32)), scales, grid, part)
    assert not np.asarray(plugs.dense(sx.Quantized(zeros, scales.scale, scales.zero))).any()


def test_the_whole_weight_is_near(rounding, grid):
    scales, codes = encode(rounding, grid, WEIGHTS["dense"], "dense")
    near = plugs.dense(sx.Quantized(codes, scales.scale, scales.zero))
    step = np.asarray(scales.scale).max()
    assert np.sqrt(np.mean(np.square(np.asarray(near) - np.asarray(WEIGHTS["dense"])))) <= step
