import jax.numpy as jnp
import numpy as np
import pytest

from spartax import quantize
from spartax.quantize.codes import decode, encode
from tests.oracles import golden
from tests.quantize.test_mse import HEAVY, PART

GRID = quantize.integer(3, symmetric=False, zero_dtype="float32")
OFFSET = 4  # the card counts codes from 0, the grid from -4


def fit(weight, calibration, grid=GRID):
    scales = calibration.fit(jnp.asarray(weight, jnp.float32), grid, PART)
    near = decode(encode(jnp.asarray(weight, jnp.float32), scales, grid), scales, grid)
    return scales, float(np.mean(np.abs(np.asarray(near) - weight)))


def test_golden_heavy_tails():
    weight, want = np.tan(1.5 * golden.inputs()[0].T), golden.NUMBERS["hqq3_heavytail"]
    scales, error = fit(weight, quantize.absmax())
    np.testing.assert_allclose(scales.zero[0] + OFFSET, want["zero_before"], rtol=1e-5)
    np.testing.assert_allclose(error, want["mean_abs_rtn"], rtol=1e-5)
    scales, error = fit(weight, quantize.hqq())
    np.testing.assert_allclose(scales.zero[0] + OFFSET, want["zero_after"], rtol=1e-4)
    np.testing.assert_allclose(error, want["mean_abs_hqq"], rtol=1e-5)


def test_golden_where_the_first_step_already_hurts():
    """The zero points of the least error are kept, not the last ones."""
    weight, want = golden.inputs()[0].T, golden.NUMBERS["hqq3"]
    scales, error = fit(weight, quantize.hqq())
    np.testing.assert_allclose(error, want["mean_abs_hqq"], rtol=1e-5)
    np.testing.assert_allclose(scales.zero[0, 0] + OFFSET, want["zero_row0"], rtol=1e-5)


@pytest.mark.parametrize("zero", ["int8", "float16"])
def test_never_worse_than_the_range_alone_and_its_scale(zero):
    grid = quantize.integer(2, 16, symmetric=False, scale_dtype="float16", zero_dtype=zero)
    (plain, before), (scales, after) = (fit(HEAVY, c, grid) for c in (quantize.absmax(), quantize.hqq()))
    np.testing.assert_array_equal(scales.scale, plain.scale)
    assert scales.zero.dtype == jnp.dtype(zero)
    assert after <= (1.0 if zero == "int8" else 0.95) * before  # rounded zero points do not move here


@pytest.mark.parametrize(
    "options", [{"norm": 0.0}, {"norm": 1.5}, {"beta": -1.0}, {"growth": 0.9}, {"steps": 0}], ids=str
)
def test_bad_options(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
        quantize.hqq(**options)
