"""QFX: golden words, arithmetic bit for bit against Python's integers, the gradient of the point, what is kept."""

import fractions
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spartax as sx
from spartax import quantize
from spartax.arrays import FakeInputs, FakeQuantized, FixedPoint
from spartax.arrays.fixed_point import point_for
from spartax.kernels import words
from spartax.kernels.words import Words
from spartax.records import Evidence, Layout
from tests import plugs
from tests.oracles.waves import wave

GOLDEN = {
    None: [1.34375, 1.125, -0.90625, -0.46875, 0.03125, 1.0625, 1.09375, -1.09375, -0.5625, 0.625],
    1: [1.0, 1.0, -0.5, -0.25, 0.03125, 1.0, 1.0, -1.0, -0.5, 0.5],
    2: [1.25, 1.125, -0.75, -0.375, 0.03125, 1.0625, 1.0625, -1.0625, -0.5625, 0.625],
}


def leaf(weight, bits, point, **options):
    shape = (1,) * jnp.ndim(weight)
    quantizer = FixedPoint(jnp.full(shape, bits, jnp.int32), jnp.full(shape, float(point)), **options)
    return FakeQuantized(jnp.asarray(weight, jnp.float32), quantizer)


@pytest.mark.parametrize("k_hot", [None, 1, 2, 8])
def test_golden_words(k_hot):
    found = sx.dense(leaf(wave(10), 8, 5, k_hot=k_hot))
    np.testing.assert_array_equal(found, GOLDEN[None if k_hot == 8 else k_hot])


def rounded(exact, rounding):
    """A fraction as an integer, by Python's own exact arithmetic."""
    if rounding == "even":
        return round(exact)
    return math.floor(exact + fractions.Fraction(1, 2)) if rounding == "half_up" else math.floor(exact)


def saturated(code, bits):
    return max(-(2 ** (bits - 1)), min(2 ** (bits - 1) - 1, code))


@pytest.mark.parametrize("rounding", ["even", "half_up", "floor"])
def test_rounding_is_exact_on_ties_and_overflow(rounding):
    grid = [i / 32 for i in range(-90, 91)] + [0.49999997 / 4, 0.12500001, -0.12500001, 100.0, -100.0]
    x = np.array(grid, np.float32)
    expected = [saturated(rounded(fractions.Fraction(float(v)) * 4, rounding), 4) / 4 for v in x]
    np.testing.assert_array_equal(jax.jit(sx.dense)(leaf(x, 4, 2, rounding=rounding)), expected)


@pytest.mark.parametrize("rounding", ["even", "half_up", "floor"])
def test_sums_products_and_requantization_in_integers(rounding):
    rng = np.random.default_rng(0)
    a, b = rng.integers(-(2**11), 2**11, 60), rng.integers(-128, 128, 60)
    a[:3], b[:3] = (-2048, 2047, -2048), (-128, -128, 127)
    left, right = Words(jnp.asarray(a, jnp.int32), 12, 7), Words(jnp.asarray(b, jnp.int32), 8, 3)
    total, product = words.add(left, right), words.multiply(left, right)
    np.testing.assert_array_equal(total.code, [int(x) + int(y) * 16 for x, y in zip(a, b)])
    assert total[1:] == (13, 7)
    np.testing.assert_array_equal(product.code, [int(x) * int(y) for x, y in zip(a, b)])
    assert product[1:] == (20, 10)
    for bits, fraction in itertools.product((6, 12), (2, 8, 12)):
        exact = [fractions.Fraction(int(c), 2**10) * 2**fraction for c in product.code]
        expected = [saturated(rounded(v, rounding), bits) for v in exact]
        np.testing.assert_array_equal(words.requantize(product, bits, fraction, rounding).code, expected)


@pytest.mark.parametrize("count", [1, 2])
def test_k_hot_words_multiply_by_shifts(count):
    a, b = np.meshgrid([-2048, -3, 0, 5, 2047], np.arange(-128, 128))
    hot = words.leading_ones(jnp.asarray(b, jnp.int32), count)
    assert max(int(c).bit_count() for c in np.abs(hot).reshape(-1)) == count
    left, right = Words(jnp.asarray(a, jnp.int32), 12, 7), Words(hot, 8, 3)
    by_shifts, product = words.shift_multiply(left, right, count), words.multiply(left, right)
    np.testing.assert_array_equal(by_shifts.code, product.code)
    assert by_shifts[1:] == product[1:]


def test_the_gradient_of_the_point():
    """By the formula; and an entry beyond the range pulls the point down: descent on the error widens the range."""
    x, bits, f = np.array([0.3, -0.7, 0.11, 5.0]), 4, 2
    grads = jax.grad(lambda w: jnp.sum(sx.dense(w)), allow_int=True)(leaf(x, bits, f + 0.3))
    ratio = x * 4
    slope = np.where(np.abs(ratio) < 7, np.round(ratio) - ratio, 7)
    expected = np.sum(slope) * -np.log(2) / 4 / np.sqrt(4 * 8)
    np.testing.assert_allclose(grads.quantizer.point, [expected], rtol=1e-5)
    np.testing.assert_array_equal(grads.weight, [1, 1, 1, 0])
    error = jax.grad(lambda w: jnp.sum((sx.dense(w) - jnp.asarray(x)) ** 2), allow_int=True)(leaf(x, bits, f))
    assert error.quantizer.point[0] > 0


def test_points_begin_where_the_largest_entry_fits_and_pack_keeps_the_words():
    largest = jnp.array([0.0, 0.3, 0.5, 0.500001, 1.0, 3.0])
    np.testing.assert_array_equal(point_for(largest, 8), [7, 8, 8, 7, 7, 5])
    weight = plugs.draw()["stack"].at[1].multiply(8.0)
    given = plugs.evidence({"stack": weight})
    for bits, size in ((6, 6), (16, 16)):
        params, info = plugs.run(quantize.qfx(bits), {"stack": weight}, given)
        ends = np.ceil(np.log2(np.abs(np.asarray(weight)).max((1, 2))))
        assert info["stack"]["fraction"] == [bits - 1 - int(e) for e in ends]
        small = sx.pack(params["stack"])
        np.testing.assert_array_equal(sx.dense(small), sx.dense(params["stack"]))
        assert sx.nbytes(small) <= 2 * 24 * 16 * size / 8 + 2 * 2 * 5


def test_activations_are_words_too():
    x = jnp.array([[0.3, -20.0, 7.97]])
    words_of_x = FakeInputs(jnp.eye(3), FixedPoint(jnp.int32(8), jnp.float32(4)))
    np.testing.assert_array_equal(sx.matmul(words_of_x, x), [[0.3125, -8, 7.9375]])


def test_bad_arguments():
    others = [lambda bits=bits: quantize.qfx(activations=bits) for bits in (0, 1)]
    for make in (lambda: quantize.qfx(17), lambda: quantize.qfx(8, rounding="up"), *others):
        with pytest.raises(ValueError, match="must be one of"):
            make()
    with pytest.raises(ValueError, match="k_hot must be an integer"):
        quantize.qfx(8, k_hot=0)
    with pytest.raises(ValueError, match="at most 32 bits; this gives 40"):
        words.multiply(Words(jnp.int32(1), 20, 0), Words(jnp.int32(1), 20, 0))


def test_words_hold_weights_of_any_size_and_tell_what_is_lost():
    """Of any size in float32; lost where training moved the point away, and where the grid has a point of its own."""
    w = {"w": jnp.asarray(np.random.default_rng(0).normal(size=(16, 8)), jnp.float32)}
    given = Evidence({"w": Layout((0,), (1,))})
    _, plain = plugs.run(quantize.qfx(4), w, given)
    for shift in (-110, -17, 10, 100):
        _, info = plugs.run(quantize.qfx(4), {"w": 2.0**shift * w["w"]}, given)
        assert info["w"]["fraction"] == [plain["w"]["fraction"][0] - shift]
        assert abs(info["w"]["relative_error"] - plain["w"]["relative_error"]) < 1e-6
        assert "warning" not in info["w"]
    moved = {"w": leaf(w["w"], 4, -9.0)}
    _, _, info = quantize.qfx(4).update(moved, (), given)
    assert info["w"]["warning"] == "100% of the weight is lost: its numbers are far from its point"
    for size, lost in ((0.1, False), (1e-4, True)):
        _, info = plugs.run(quantize.quantize(quantize.fixed_point()), {"w": size * w["w"]}, given)
        assert ("100% of the weight is lost" in str(info["w"].get("warnings"))) == lost
