import jax.numpy as jnp
import numpy as np
import pytest

from spartax import quantize
from tests.quantize.test_mse import HEAVY, PART


def test_symmetric_and_both_ends():
    symmetric = quantize.percentile(95).fit(jnp.asarray(HEAVY), quantize.integer(4), PART)
    np.testing.assert_allclose(symmetric.scale[0], np.percentile(np.abs(HEAVY), 95, axis=0) / 7, rtol=1e-5)
    grid = quantize.integer(4, symmetric=False, zero_dtype="float32")
    scales = quantize.percentile(95).fit(jnp.asarray(HEAVY), grid, PART)
    low, high = np.percentile(HEAVY, [5, 95], axis=0)
    np.testing.assert_allclose(scales.scale[0], (high - low) / 15, rtol=1e-4)
    np.testing.assert_allclose(scales.zero[0], -8 - low / ((high - low) / 15), rtol=1e-3)


def test_groups_and_the_whole():
    grid = quantize.integer(4, group=16)
    scales = quantize.percentile(80).fit(jnp.asarray(HEAVY), grid, PART)
    want = np.percentile(np.abs(HEAVY).reshape(4, 16, 4), 80, axis=1) / 7
    np.testing.assert_allclose(scales.scale, want, rtol=1e-5)
    whole = quantize.percentile(100).fit(jnp.asarray(HEAVY), grid, PART)
    np.testing.assert_allclose(whole.scale, quantize.absmax().fit(jnp.asarray(HEAVY), grid, PART).scale, rtol=1e-6)


def test_masked_entries_are_not_counted():
    kept = jnp.asarray(np.arange(64)[:, None] % 2 == np.zeros((64, 4)))
    scales = quantize.percentile(90).fit(jnp.where(kept, HEAVY, 0), quantize.integer(8), PART._replace(kept=kept))
    np.testing.assert_allclose(scales.scale[0], np.percentile(np.abs(HEAVY[::2]), 90, axis=0) / 127, rtol=1e-5)
    none = quantize.percentile(90).fit(jnp.zeros((64, 4)), quantize.integer(8), PART._replace(kept=~kept & kept))
    np.testing.assert_array_equal(none.scale, np.ones((1, 4)))


@pytest.mark.parametrize("percent", [49.0, 101.0, "99"])
def test_bad_percent(percent):
    with pytest.raises(ValueError, match="percent must be in"):
        quantize.percentile(percent)
