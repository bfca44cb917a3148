import jax.numpy as jnp
import numpy as np
import pytest

from spartax import quantize
from spartax.quantize.codes import encode
from tests.quantize.test_mse import HEAVY, PART, errors


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_the_scale_is_the_projection_on_its_own_codes(bits):
    """The closed form at the fixed point, and no worse than the best cut."""
    grid = quantize.integer(bits)
    scales, cut = (c.fit(jnp.asarray(HEAVY), grid, PART) for c in (quantize.least_squares(), quantize.mse()))
    codes = np.asarray(encode(jnp.asarray(HEAVY), scales, grid), np.float64)
    np.testing.assert_allclose(scales.scale[0], (HEAVY * codes).sum(0) / (codes**2).sum(0), rtol=1e-5)
    assert (errors(HEAVY, scales, grid) <= errors(HEAVY, cut, grid) * (1 + 1e-6)).all()
    assert errors(HEAVY, scales, grid).sum() < errors(HEAVY, cut, grid).sum()


def test_float_zero_points_are_those_of_the_regression_line():
    grid = quantize.integer(3, symmetric=False, zero_dtype="float32")
    weight = HEAVY + 3
    scales = quantize.least_squares().fit(jnp.asarray(weight), grid, PART)
    codes = np.asarray(encode(jnp.asarray(weight), scales, grid), np.float64)
    for column in range(4):
        slope, intercept = np.polyfit(codes[:, column], weight[:, column].astype(np.float64), 1)
        np.testing.assert_allclose(scales.scale[0, column], slope, rtol=1e-4)
        np.testing.assert_allclose(scales.zero[0, column], -intercept / slope, rtol=1e-4)


def test_an_integer_line_is_found_exactly():
    """Weights on 16 levels two steps off center, one of them far out of the range that absmax would take as codes."""
    grid = quantize.integer(4, symmetric=False)
    weight = np.array([[0.3 * (c - 2)] for c in range(-8, 8)], np.float32)
    scales = quantize.least_squares().fit(jnp.asarray(weight), grid, PART)
    np.testing.assert_allclose(scales.scale, [[0.3]], rtol=1e-6)
    np.testing.assert_array_equal(scales.zero, [[2]])


def test_scales_are_judged_as_they_are_stored():
    """On a grid of coarse scales a fitted one that is rounded for the worse is not taken."""
    grid = quantize.mx(group=32)
    fitted, cut = (c.fit(jnp.asarray(HEAVY), grid, PART) for c in (quantize.least_squares(), quantize.mse()))
    assert fitted.scale.dtype == jnp.uint8
    assert (errors(HEAVY, fitted, grid) <= errors(HEAVY, cut, grid)).all()


def test_bad_options():
    with pytest.raises(ValueError, match="steps must be"):
        quantize.least_squares(steps=0)
