"""Known answers of absmax scales with nearest rounding, and the round trip against NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import spartax as sx
from spartax import quantize
from spartax.quantize.records import Part
from spartax.records import Evidence, Layout
from tests import plugs
from tests.oracles import golden
from tests.oracles import quantize as oracle

DENSE = Layout((0,), (1,))
PART = Part("w", DENSE, Evidence({"w": DENSE}))


def encode(weight, grid):
    scales = quantize.absmax().fit(jnp.asarray(weight, jnp.float32), grid, PART)
    return scales, quantize.nearest().round(jnp.asarray(weight, jnp.float32), scales, grid, PART)


def test_symmetric_known_answer():
    """Column 0: scale 7 / 7; column 1: scale 14 / 7. Halves go to the even code."""
    scales, codes = encode([[7.0, -14.0], [2.5, 3.0], [-3.4, 0.0]], quantize.integer(4))
    np.testing.assert_allclose(scales.scale, [[1.0, 2.0]])
    assert scales.zero is None
    np.testing.assert_array_equal(codes, [[7, -7], [2, 2], [-3, 0]])


def test_asymmetric_known_answer():
    """Column 0 spans [-1, 14] in 15 steps, with zero one step up; column 1 is positive: its range is widened to 0."""
    scales, codes = encode([[-1.0, 30.0], [14.0, 6.0], [0.0, 0.0]], quantize.integer(4, symmetric=False))
    np.testing.assert_allclose(scales.scale, [[1.0, 2.0]])
    np.testing.assert_array_equal(scales.zero, [[-7, -8]])
    np.testing.assert_array_equal(codes, [[-8, 7], [7, -5], [-7, -8]])


def test_golden_round_to_nearest():
    """3 bits, asymmetric, one scale an output."""
    kernel = jnp.asarray(golden.inputs()[0].T, jnp.float32)
    transform = quantize.quantize(quantize.integer(3, symmetric=False))
    params, _ = plugs.run(transform, {"w": kernel}, PART.evidence)
    np.testing.assert_allclose(golden.output_error(plugs.dense(params["w"])), golden.NUMBERS["rtn3_err"], rtol=1e-4)


GRIDS = [
    quantize.integer(8),
    quantize.integer(4, group=4),
    quantize.integer(2, group=8, symmetric=False),
    quantize.integer(3, channel=False, symmetric=False),
]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_against_one_block_at_a_time(grid):
    weight = np.random.default_rng(0).normal(size=(16, 6)).astype(np.float32) + 0.3
    params, info = plugs.run(quantize.quantize(grid), {"w": jnp.asarray(weight)}, PART.evidence)
    shape = grid.scale_shape(weight.shape, DENSE)
    near, codes, scales = oracle.round_trip(weight, shape, grid.bits, grid.symmetric)
    np.testing.assert_allclose(plugs.dense(params["w"]), near, atol=1e-5)
    np.testing.assert_array_equal(plugs.dense(params["w"].codes), codes)
    np.testing.assert_allclose(params["w"].scale, scales, rtol=1e-6)
    error = np.linalg.norm(near - weight) / np.linalg.norm(weight)
    np.testing.assert_allclose(info["w"]["relative_error"], error, rtol=1e-3)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.sampled_from(GRIDS), st.sampled_from([1e-6, 1.0, 1e4]))
def test_no_entry_is_off_by_more_than_half_a_step(seed, grid, size):
    rng = np.random.default_rng(seed)
    weight = size * rng.normal(size=(16, 6)) * rng.choice([0.0, 0.01, 1.0], (16, 6)) + size * rng.choice([0, 2])
    weight = np.asarray(weight, np.float32)
    scales, codes = encode(weight, grid)
    error = np.abs(np.asarray(plugs.dense(sx.Quantized(codes, scales.scale, scales.zero))) - weight)
    for at, block in oracle.blocks(weight.shape, scales.scale.shape):
        assert error[block].max() <= float(scales.scale[at]) / 2 * (1 + 1e-4)
        assert not (error[block][weight[block] == 0]).any()


def test_one_outlier_spoils_its_own_block_only():
    weight = np.full((16, 2), 0.1, np.float32)
    weight[0, 0] = 100.0
    for grid, spoilt in ((quantize.integer(4, group=4), 3), (quantize.integer(4), 15)):
        scales, codes = encode(weight, grid)
        dense = np.asarray(plugs.dense(sx.Quantized(codes, scales.scale)))
        assert int((np.abs(dense - weight) > 0.05).sum()) == spoilt


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_block_of_zeros(symmetric):
    scales, codes = encode(np.zeros((4, 2)), quantize.integer(4, symmetric=symmetric))
    np.testing.assert_array_equal(scales.scale, np.ones((1, 2)))
    np.testing.assert_array_equal(plugs.dense(sx.Quantized(codes, scales.scale, scales.zero)), np.zeros((4, 2)))


def test_codes_are_those_of_the_stored_scale():
    """A scale rounded to half precision moves codes; they must fit the scale that is kept."""
    weight = np.random.default_rng(1).normal(size=(64, 3)).astype(np.float32)
    scales, codes = encode(weight, quantize.integer(8, scale_dtype="bfloat16"))
    assert scales.scale.dtype == jnp.bfloat16
    step = np.asarray(scales.scale, np.float32)
    assert (np.abs(np.asarray(codes) * step - weight) <= step * 0.501).all()
