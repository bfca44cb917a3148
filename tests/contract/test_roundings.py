"""What every rounding obeys, on every grid that it applies to."""

import jax.numpy as jnp
import numpy as np
import pytest

from spartax import catalog, quantize
from spartax.kernels import levels
from spartax.quantize.codes import decode
from spartax.quantize.records import Part, Rounding
from spartax.records import Evidence
from tests import plugs

WEIGHTS, GIVEN = plugs.draw(), plugs.evidence()
ROUNDINGS = {name: catalog.load(quantize.roundings, name)() for name in catalog.names(quantize.roundings)}


def applies(rounding, grid):
    try:
        if rounding.check:
            rounding.check(grid)
    except ValueError:
        return False
    return True


PAIRS = [(r, g) for r, rounding in ROUNDINGS.items() for g in plugs.GRIDS if applies(rounding, plugs.GRIDS[g])]


def encode(rounding, grid, path):
    part = Part(path, GIVEN.layouts[path], GIVEN)
    scales = catalog.load(quantize.calibrations, grid.calibration)().fit(WEIGHTS[path], grid, part)
    return scales, rounding.round(WEIGHTS[path], scales, grid, part)


def test_records():
    for rounding in ROUNDINGS.values():
        assert isinstance(rounding, Rounding)
        assert rounding.needs <= set(Evidence._fields)
    assert {g for _, g in PAIRS} == set(plugs.GRIDS)


@pytest.mark.parametrize("path", ["conv", "stack", "outputs_first"])
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_other_layouts(rounding, path):
    _, codes = encode(ROUNDINGS[rounding], quantize.integer(4, 4), path)
    assert codes.dtype == jnp.int8
    assert codes.shape == WEIGHTS[path].shape
    assert np.asarray(codes).min() >= -7
    assert np.asarray(codes).max() <= 7


@pytest.mark.parametrize(("rounding", "grid"), PAIRS)
def test_codes_are_inside_the_grid_and_near(rounding, grid):
    rounding, grid = ROUNDINGS[rounding], plugs.GRIDS[grid]
    scales, codes = encode(rounding, grid, "dense")
    assert codes.dtype == jnp.int8
    assert codes.shape == (24, 20)
    least, most = grid.codes
    assert least <= np.asarray(codes).min()
    assert np.asarray(codes).max() <= most
    near = decode(codes, scales, grid)
    step = np.asarray(levels.scale_values(scales.scale), np.float32).max() * max(1, grid.largest / 4)
    assert np.sqrt(np.mean(np.square(np.asarray(near) - np.asarray(WEIGHTS["dense"])))) <= step


@pytest.mark.parametrize(("rounding", "grid"), PAIRS)
def test_what_is_on_the_grid_stays_there(rounding, grid):
    """A weight that is quantized already is reproduced, zero included."""
    rounding, grid = ROUNDINGS[rounding], plugs.GRIDS[grid]
    part = Part("dense", GIVEN.layouts["dense"], GIVEN)
    scales, codes = encode(rounding, grid, "dense")
    near = decode(codes, scales, grid)
    np.testing.assert_array_equal(decode(rounding.round(near, scales, grid, part), scales, grid), near)
    if grid.levels != "binary" and grid.zero in (None, "int8"):
        zeros = rounding.round(jnp.zeros_like(near), scales, grid, part)
        assert not np.asarray(decode(zeros, scales, grid)).any()
