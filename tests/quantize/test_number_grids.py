"""Known answers of the grids that are not evenly spaced, or whose scale is not the largest entry."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import spartax as sx
from spartax import quantize
from spartax.kernels import levels
from spartax.quantize.codes import decode, encode
from spartax.quantize.records import Part
from spartax.records import Evidence, Layout
from tests import plugs
from tests.oracles import golden, waves

DENSE = Layout((0,), (1,))
GIVEN = Evidence({"w": DENSE})
PART = Part("w", DENSE, GIVEN)
NORMAL = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)


def compress(weight, grid, calibration=None):
    weight = jnp.asarray(weight, jnp.float32)
    params, info = plugs.run(quantize.quantize(grid, calibration), {"w": weight}, GIVEN)
    return params["w"], np.asarray(plugs.dense(params["w"])), info["w"]


def test_golden_mxfp4():
    weight = np.linspace(-1, 1, 32)[:, None]
    leaf, near, _ = compress(weight, quantize.mx())
    want = golden.NUMBERS["mxfp4_linspace"]
    np.testing.assert_array_equal(leaf.scale, [[127 + want["exp"]]])
    np.testing.assert_array_equal(near[:, 0], want["q"])
    np.testing.assert_allclose(np.mean((near - weight) ** 2), want["mse"], rtol=1e-6)
    assert sx.nbytes(leaf) == 32 // 2 + 1


@pytest.mark.parametrize("name", ["e4m3", "e5m2"])
def test_floats_of_eight_bits(name):
    """Against the conversions of another library; a shared exponent is a byte, and what is beyond 448 saturates."""
    kind, top = {"e4m3": (ml_dtypes.float8_e4m3fn, 448.0), "e5m2": (ml_dtypes.float8_e5m2, 57344.0)}[name]
    leaf, near, _ = compress(NORMAL, quantize.fp8(name))
    scale = np.abs(NORMAL).max(0) / np.float32(top)
    np.testing.assert_allclose(leaf.scale, scale[None], rtol=1e-6)
    np.testing.assert_array_equal(near, (NORMAL / np.asarray(leaf.scale)).astype(kind).astype(np.float32) * leaf.scale)
    leaf, near, _ = compress(NORMAL, quantize.mx(name))
    blocks = NORMAL.reshape(2, 32, 3)
    power = np.floor(np.log2(np.abs(blocks).max(1))) - {"e4m3": 8, "e5m2": 15}[name]
    np.testing.assert_array_equal(leaf.scale, power + 127)
    unit = np.clip(blocks / 2.0 ** power[:, None], -top, top).astype(np.float32)
    assert (np.abs(blocks / 2.0 ** power[:, None]) > top).any()
    np.testing.assert_array_equal(near.reshape(2, 32, 3), unit.astype(kind).astype(np.float32) * 2.0 ** power[:, None])


def test_nf4_takes_the_nearest_quantile_of_its_block():
    leaf, near, _ = compress(np.concatenate([NORMAL, 3 * NORMAL]), quantize.nf4(scale_dtype="float16"))
    assert leaf.scale.shape == (2, 3)
    table = np.array(levels.NF4)
    for block, weight in ((slice(0, 64), NORMAL), (slice(64, 128), 3 * NORMAL)):
        scale = np.abs(weight).max(0).astype(np.float16).astype(np.float32)
        want = table[np.abs(weight[..., None] / scale[:, None] - table).argmin(-1)] * scale
        np.testing.assert_allclose(near[block], want, rtol=1e-6)


@pytest.mark.parametrize(("length", "group"), [(128, 64), (48, 48), (96, 48), (3, 3), (784, 56), (74, 37)])
def test_a_group_shrinks_to_a_divisor_of_the_axis(length, group):
    assert quantize.nf4().scale_shape((length, 2), DENSE) == (length // group, 2)
    assert compress(np.ones((length, 2)), quantize.nf4())[2]["group"] == group


@pytest.mark.parametrize("length", [67, 2 * 67])
def test_a_group_that_would_shrink_to_little_is_refused(length):
    with pytest.raises(ValueError, match=f"which has {length} entries; got group=64"):
        compress(np.ones((length, 2)), quantize.nf4())


def test_powers_of_two_known_answer():
    """Levels 0, 1, 2, 4 and a scale of 8 / 4; halves between levels go to the even code: 0.5 to 0, 1.5 to 2, 3 to 2."""
    leaf, near, _ = compress([[8.0], [1.0], [1.01], [3.0], [-6.0], [-6.01], [0.0], [-2.0]], quantize.power_of_two(3))
    np.testing.assert_array_equal(sx.dense(leaf.codes)[:, 0], [3, 0, 1, 2, -2, -3, 0, -1])
    np.testing.assert_array_equal(near[:, 0], [8, 0, 2, 4, -4, -8, 0, -2])


@pytest.mark.parametrize("bits", [2, 3, 4, 5])
def test_powers_of_two_are_sums_of_one_shift(bits):
    leaf, near, _ = compress(NORMAL, quantize.power_of_two(bits))
    ratio = np.abs(near / np.asarray(leaf.scale))
    assert set(np.unique(ratio)) <= {0.0, *(2.0**k for k in range(2 ** (bits - 1) - 1))}
    np.testing.assert_allclose(np.abs(near).max(0), np.abs(NORMAL).max(0), rtol=1e-6)


def test_golden_fixed_point():
    leaf, near, info = compress(waves.wave(10)[:, None], quantize.fixed_point(8, 5))
    np.testing.assert_array_equal(near[:, 0], golden.NUMBERS["qfx_8_5"])
    assert leaf.scale.shape == (1, 1)
    assert "warnings" not in info


def test_fixed_point_halves_go_to_even_and_what_is_out_of_range_saturates():
    _, near, info = compress([[0.125], [0.375], [-0.125], [2.0], [-2.5], [1.75], [-2.0]], quantize.fixed_point(4, 2))
    np.testing.assert_array_equal(near[:, 0], [0.0, 0.5, 0.0, 1.75, -2.0, 1.75, -2.0])
    assert info["warnings"] == ["2 entries out of range saturate"]
    _, near, _ = compress([[9.0], [100.0], [-64.0]], quantize.fixed_point(4, -3))
    np.testing.assert_array_equal(near[:, 0], [8.0, 56.0, -64.0])


def test_binary_is_sign_times_mean_magnitude():
    leaf, near, _ = compress(NORMAL, quantize.binary())
    np.testing.assert_allclose(near, np.sign(NORMAL) * np.abs(NORMAL).mean(0), rtol=1e-6)
    assert sx.nbytes(leaf) == 3 * (64 // 8 + 4)
    _, near, _ = compress(NORMAL * [1.0, 0.0, 1.0], quantize.binary(scale_dtype="float16"))
    assert not near[:, 1].any()


def test_binary_under_a_mask_is_the_mean_of_kept_entries():
    mask = np.arange(64)[:, None] % 4 == np.zeros((64, 3))
    leaf = sx.Masked(jnp.asarray(NORMAL), jnp.asarray(mask))
    params, info = plugs.run(quantize.quantize(quantize.binary()), {"w": leaf}, GIVEN)
    want = np.where(mask, np.sign(NORMAL) * np.abs(NORMAL[::4]).mean(0), 0)
    np.testing.assert_allclose(plugs.dense(params["w"]), want, rtol=1e-6)
    np.testing.assert_allclose(plugs.dense(sx.pack(params["w"])), want, rtol=1e-6)
    error = np.linalg.norm(want - NORMAL * mask) / np.linalg.norm(NORMAL * mask)
    np.testing.assert_allclose(info["w"]["relative_error"], error, rtol=1e-5)


def test_ternary_is_the_best_of_all_thresholds():
    """For k entries kept the best scale is their mean magnitude: the best k by trying all."""
    _, near, _ = compress(NORMAL, quantize.ternary())
    for column in range(3):
        size = np.sort(np.abs(NORMAL[:, column]))[::-1].astype(np.float64)
        gains = np.cumsum(size) ** 2 / np.arange(1, 65)
        best = np.sum(size**2) - gains.max()
        np.testing.assert_allclose(np.sum((near[:, column] - NORMAL[:, column]) ** 2), best, rtol=1e-5)


def test_scales_beyond_half_precision_are_counted():
    """One column each: as it is, too large, subnormal, below the smallest subnormal number."""
    weight = NORMAL[:, [0, 1, 2, 2]] * np.array([1.0, 1e7, 1e-6, 1e-8], np.float32)
    _, near, info = compress(weight, quantize.integer(4, scale_dtype="float16"))
    assert np.isfinite(near).all()
    assert info["warnings"] == [
        "1 scales beyond the range of float16 saturate",
        "2 scales below the normal numbers of float16 lose digits",
        "96% of the weight is lost: its numbers are not those of this grid",
    ]
    np.testing.assert_allclose(np.abs(near[:, 1]).max(), 7 * 65504.0)
    assert np.linalg.norm(near[:, 2] - weight[:, 2]) < 0.2 * np.linalg.norm(weight[:, 2])  # a subnormal scale
    assert not near[:, 3].any()  # all of the column is less than half of that step
    assert "warnings" not in compress(weight, quantize.integer(4, scale_dtype="bfloat16"))[2]


def test_zero_points_beyond_half_precision_are_counted_and_so_are_blocks_of_zeros():
    """Blocks of two around 1: a spread of 1e-5 wants a zero point of -1.5 million, one of 0.5 wants -38."""
    weight = [[1.0, 1.0, 0.0], [1.00001, 1.5, 0.0]]
    grid = quantize.integer(4, symmetric=False, zero_dtype="float16")
    leaf, near, info = compress(weight, grid)
    assert info["warnings"] == ["1 zero points beyond the range of float16 saturate"]
    assert info["zero_blocks"] == 1
    assert float(leaf.zero[0, 0]) == -65504
    assert near[0, 0] < 0.1
    np.testing.assert_allclose(near[:, 1:], np.array(weight)[:, 1:], atol=1e-3)
    exact = compress(weight, quantize.integer(4, symmetric=False, zero_dtype="float32"))
    assert "warnings" not in exact[2]
    np.testing.assert_allclose(exact[1], weight, atol=1e-3)


def test_a_weight_that_is_not_finite_is_named():
    with pytest.raises(ValueError, match="w holds NaN or infinite"):
        compress(np.where(NORMAL > 2, np.nan, NORMAL), quantize.mx())


@pytest.mark.parametrize(
    ("factory", "options", "message"),
    [
        (quantize.fp8, {"levels": "e3m4"}, "levels must be one of 'e4m3', 'e5m2'"),
        (quantize.mx, {"levels": "nf4"}, "levels must be one of 'e2m1'"),
        (quantize.mx, {"group": 0}, "group must be an integer"),
        (quantize.nf4, {"group": 1.5}, "group must be an integer"),
        (quantize.power_of_two, {"bits": 6}, "bits must be one of 2, 3, 4, 5"),
        (quantize.fixed_point, {"word": 16}, "word must be one of 2, 3, 4, 5, 6, 7, 8"),
        (quantize.fixed_point, {"fraction": 40}, "fraction must be in"),
        (quantize.fixed_point, {"fraction": 1.5}, "fraction must be an integer"),
        (quantize.ternary, {"channel": False, "group": 4}, "channel must be True"),
        (quantize.integer, {"zero_dtype": "int4"}, "zero_dtype must be one of"),
    ],
)
def test_bad_options(factory, options, message):
    with pytest.raises(ValueError, match=message):
        factory(**options)


@pytest.mark.parametrize(
    ("grid", "calibration", "message"),
    [
        (quantize.binary(), quantize.absmax(), r"least_squares\(\), mse\(\) or left out for binary"),
        (quantize.binary(), quantize.percentile(), r"or left out for binary\(\); got percentile"),
        (quantize.fixed_point(), quantize.mse(), r"or left out for fixed_point\(\), .* got mse"),
        (quantize.fixed_point(), quantize.least_squares(), "got least_squares"),
        (quantize.mx(), quantize.hqq(), r"must have zero points for hqq\(\).* levels 'e2m1'"),
    ],
)
def test_a_calibration_that_does_not_apply_is_refused_at_the_door(grid, calibration, message):
    with pytest.raises(ValueError, match=message):
        quantize.quantize(grid, calibration)


FORMATS = {
    "integer": (-7, 7),
    "power_of_two": (-15, 15),
    "nf4": (0, 15),
    "binary": (0, 1),
    "e2m1": (0, 15),
    "e4m3": (-128, 127),
    "e5m2": (-128, 127),
}
encoded = jax.jit(levels.encode, static_argnums=(1, 2))


@settings(max_examples=10, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.sampled_from([1e-3, 1.0, 5.0, 3e3, 1e6]))
def test_every_format_takes_the_nearest_number(seed, size):
    values = (size * np.random.default_rng(seed).normal(size=32)).astype(np.float32)
    for name, codes in FORMATS.items():
        table = np.asarray(levels.decode(jnp.arange(codes[0], codes[1] + 1).astype(jnp.int8), name), np.float64)
        table = table[np.isfinite(table)]
        near = np.asarray(levels.decode(encoded(values, name, codes), name), np.float64)
        best = np.abs(values[:, None] - table).min(1)
        np.testing.assert_allclose(np.abs(values - near), best, rtol=1e-6, atol=1e-6 * np.abs(best).max())


def test_shared_exponents_nearest_to_a_scale():
    scale = np.array([0.0, 1.0, 1.49, 1.51, 3.0, 0.7, 2.0**-126, 2.0**100], np.float32)
    bytes_ = np.asarray(levels.nearest_exponent(jnp.asarray(scale))).astype(int)
    np.testing.assert_array_equal(bytes_, [0, 127, 127, 128, 128, 126, 1, 227])


def test_shared_exponents_as_numbers():
    values = np.asarray(levels.scale_values(jnp.array([0, 1, 127, 254, 255], jnp.uint8)))
    np.testing.assert_array_equal(values.view(np.int32), [2**22, 2**23, 127 << 23, 254 << 23, 0x7FC00000])


def test_round_trip_in_jit_is_the_leaf():
    """`decode` is what the stored leaf means, for grids with zero points too."""
    grid = quantize.integer(3, 16, symmetric=False, zero_dtype="float16")
    scales = quantize.absmax().fit(jnp.asarray(NORMAL), grid, PART)
    near = decode(encode(jnp.asarray(NORMAL), scales, grid), scales, grid)
    leaf, dense, _ = compress(NORMAL, grid)
    assert leaf.zero.dtype == jnp.float16
    np.testing.assert_array_equal(near, dense)
