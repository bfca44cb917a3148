"""What every calibration obeys, on every grid that it applies to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spartax import catalog, quantize
from spartax.kernels import levels
from spartax.quantize import codes
from spartax.quantize.records import Calibration, Part
from spartax.records import Evidence
from tests import plugs

WEIGHTS, GIVEN = plugs.draw(), plugs.evidence()
PART = Part("dense", GIVEN.layouts["dense"], GIVEN)
CALIBRATIONS = {name: catalog.load(quantize.calibrations, name)() for name in catalog.names(quantize.calibrations)}


def applies(calibration, grid):
    try:
        if calibration.check:
            calibration.check(grid)
    except ValueError:
        return False
    return True


PAIRS = [(c, g) for c, calibration in CALIBRATIONS.items() for g in plugs.GRIDS if applies(calibration, plugs.GRIDS[g])]


def test_records():
    for calibration in CALIBRATIONS.values():
        assert isinstance(calibration, Calibration)
        assert calibration.needs <= set(Evidence._fields)
    assert {g for _, g in PAIRS} == set(plugs.GRIDS)
    assert {c for c, _ in PAIRS} == set(CALIBRATIONS)


def fits(scales, grid, shape, layout):
    assert scales.scale.shape == grid.scale_shape(shape, layout)
    assert scales.scale.dtype == jnp.dtype(grid.scale_dtype)
    values = np.asarray(levels.scale_values(scales.scale), np.float32)
    assert np.isfinite(values).all()
    assert (values > 0).all()
    assert (scales.zero is None) == grid.symmetric
    if scales.zero is None:
        return
    assert scales.zero.shape == scales.scale.shape
    assert scales.zero.dtype == jnp.dtype(grid.zero)
    assert np.isfinite(np.asarray(scales.zero, np.float32)).all()
    if grid.zero == "int8":
        assert grid.codes[0] <= np.asarray(scales.zero).min()
        assert np.asarray(scales.zero).max() <= grid.codes[1]


@pytest.mark.parametrize(("calibration", "grid"), PAIRS)
def test_scales_fit_the_grid_and_zeros_stay_zeros(calibration, grid):
    """Also a column of zeros, and blocks of them; where zero is no code, the column still is one of zeros."""
    calibration, grid = CALIBRATIONS[calibration], plugs.GRIDS[grid]
    weight = np.array(WEIGHTS["dense"])
    fits(calibration.fit(jnp.asarray(weight), grid, PART), grid, weight.shape, PART.layout)
    weight[5], weight[:, 3] = 0.0, 0.0
    scales = calibration.fit(jnp.asarray(weight), grid, PART)
    near = np.asarray(codes.decode(codes.encode(jnp.asarray(weight), scales, grid), scales, grid))
    assert np.isfinite(near).all()
    has_zero = grid.levels != "binary" and grid.zero in (None, "int8")
    assert not near[weight == 0 if has_zero else (slice(None), 3)].any()
    assert np.linalg.norm(near - weight) < np.linalg.norm(weight)


@pytest.mark.parametrize("path", ["conv", "stack", "outputs_first"])
@pytest.mark.parametrize("calibration", CALIBRATIONS)
def test_scales_of_other_layouts(calibration, path):
    """Those of one block are those of the block alone."""
    calibration, layout = CALIBRATIONS[calibration], GIVEN.layouts[path]
    grid = quantize.integer(4, 4, symmetric=False)
    scales = calibration.fit(WEIGHTS[path], grid, Part(path, layout, GIVEN))
    fits(scales, grid, WEIGHTS[path].shape, layout)


@pytest.mark.parametrize("calibration", CALIBRATIONS)
def test_jit_is_the_same(calibration):
    calibration, grid = CALIBRATIONS[calibration], quantize.integer(4, 8, symmetric=False, zero_dtype="float32")
    fit = lambda w: calibration.fit(w, grid, PART)  # noqa: E731
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3)  # noqa: E731
    jax.tree.map(close, jax.jit(fit)(WEIGHTS["dense"]), fit(WEIGHTS["dense"]))


@pytest.mark.parametrize("calibration", CALIBRATIONS)
def test_entries_that_are_masked_do_not_count(calibration):
    """Kept rows alone give the same scales as kept rows among masked ones."""
    calibration, grid = CALIBRATIONS[calibration], quantize.integer(4, symmetric=False, zero_dtype="float32")
    weight = WEIGHTS["dense"] + 0.8  # far from centered: what is masked, being zero, would widen the range
    kept = np.arange(24)[:, None] % 3 > np.zeros((24, 20))
    own = GIVEN.moments["dense"][np.ix_(kept[:, 0], kept[:, 0])]
    alone = calibration.fit(weight[kept[:, 0]], grid, PART._replace(evidence=GIVEN._replace(moments={"dense": own})))
    among = calibration.fit(jnp.where(kept, weight, 0), grid, PART._replace(kept=jnp.asarray(kept)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), among, alone)
