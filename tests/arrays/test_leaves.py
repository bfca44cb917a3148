"""Known answers for each leaf, worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spartax as sx
from spartax.arrays import packed
from spartax.kernels import bits as bits_kernel
from tests import leaves

pytestmark = pytest.mark.core


def test_four_bit_codes_are_two_to_a_byte():
    """Little-endian: code 0 is the low nibble. 1 and 2 stored above -8 are 9 and 10: 0xA9."""
    small = packed.pack_codes(jnp.array([1, 2, -8, 7], jnp.int8), 4, -8)
    np.testing.assert_array_equal(small.data, np.array([0xA9, 0xF0], np.uint8))
    np.testing.assert_array_equal(sx.dense(small), [1, 2, -8, 7])


def test_three_bit_codes_cross_bytes():
    """1, 2, 3 in three bits each: 001, 010, 011 from the low end = 0b11_010_001, then 0b0."""
    data = bits_kernel.pack_bits(jnp.array([1, 2, 3]), 3, 0)
    np.testing.assert_array_equal(data, np.array([0b11010001, 0, 0], np.uint8))


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize(("shape", "axis"), [((5, 7), 1), ((9, 4), 0)])
def test_pack_then_unpack_is_exact(bits, shape, axis):
    codes = np.random.default_rng(bits).integers(0, 2**bits, shape).astype(np.int32)
    codes.flat[:2] = 0, 2**bits - 1
    data = bits_kernel.pack_bits(codes, bits, axis)
    assert data.shape[axis] == bits_kernel.packed_length(codes.shape[axis], bits)
    np.testing.assert_array_equal(bits_kernel.unpack_bits(data, bits, axis, codes.shape[axis]), codes)


def test_masked_zero_and_gradient():
    weight, mask = jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([[True, False], [False, True]])
    np.testing.assert_array_equal(sx.dense(sx.Masked(weight, mask)), [[1, 0], [0, 4]])
    gradient = jax.grad(lambda w: jnp.sum(sx.dense(sx.Masked(w, mask)) ** 2))(weight)
    np.testing.assert_array_equal(gradient, [[2, 0], [0, 8]])


def test_masked_keeps_nan_out():
    """A removed weight that is NaN must not leak: where, not a product."""
    assert sx.dense(sx.Masked(jnp.array([jnp.nan, 1.0]), jnp.array([False, True])))[0] == 0


def test_packed_mask_bytes():
    """64 x 64 at 90 %: 512 bytes of mask and 4 bytes for each of the 410 kept weights."""
    mask = jnp.asarray(np.random.default_rng(0).permutation(4096) < 410).reshape(64, 64)
    leaf = sx.Masked(leaves.normal(64, 64), mask)
    assert sx.nbytes(leaf) == 4096 * 5
    assert sx.nbytes(sx.pack(leaf)) == 512 + 410 * 4


def test_pruned_int4_bytes():
    """The kept codes at half a byte each, the mask at one bit, the scales."""
    mask = jnp.asarray(np.random.default_rng(0).permutation(4096) < 410).reshape(64, 64)
    small = sx.pack(sx.Masked(leaves.quantized((64, 64), 4), mask))
    assert sx.nbytes(small) == 205 + 512 + 64 * 4


def test_pack_under_jit_is_refused():
    with pytest.raises(ValueError, match="outside jit"):
        jax.jit(sx.pack)(leaves.masked((4, 4)))


def test_bitmask_with_nothing_kept():
    empty = sx.pack(sx.Masked(jnp.ones((3, 5)), jnp.zeros((3, 5), bool)))
    np.testing.assert_array_equal(sx.dense(empty), np.zeros((3, 5)))


@pytest.mark.parametrize(
    ("scale", "zero", "expected"),
    [
        ([[2.0]], None, [[2, 4], [6, 8], [-2, -4], [-6, -8]]),
        ([[1.0, 10.0]], None, [[1, 20], [3, 40], [-1, -20], [-3, -40]]),
        ([[1.0, 1.0], [10.0, 100.0]], None, [[1, 2], [3, 4], [-10, -200], [-30, -400]]),
        ([[1.0, 1.0], [1.0, 1.0]], [[1, 2], [0, 0]], [[0, 0], [2, 2], [-1, -2], [-3, -4]]),
    ],
    ids=["tensor", "channel", "group of two along the input", "zero points"],
)
def test_quantized_blocks(scale, zero, expected):
    codes = jnp.array([[1, 2], [3, 4], [-1, -2], [-3, -4]], jnp.int8)
    leaf = sx.Quantized(codes, jnp.array(scale), None if zero is None else jnp.array(zero, jnp.int8))
    np.testing.assert_array_equal(sx.dense(leaf), expected)


def test_int4_bytes():
    """64 x 32 in groups of 16: 1,024 bytes of codes, 4 x 32 float scales."""
    assert sx.nbytes(leaves.quantized((64, 32), 4, (4, 32))) == 1024 + 4 * 32 * 4


def test_lowrank_product_and_views():
    left, right = jnp.array([[1.0], [2.0]]), jnp.array([[3.0, 4.0, 5.0]])
    leaf = sx.LowRank(left, right)
    np.testing.assert_array_equal(sx.dense(leaf), [[3, 4, 5], [6, 8, 10]])
    assert (leaf.rank, sx.nbytes(leaf)) == (1, 20)


def test_lowrank_columns_say_where_the_cut_is():
    left, right = leaves.normal(6, 2), leaves.normal(2, 4, 3, 3)
    leaf = sx.LowRank(left, right, columns=3)
    assert leaf.shape == (6, 4, 3, 3)
    np.testing.assert_allclose(sx.dense(leaf), np.einsum("or,rihw->oihw", left, right), rtol=1e-5, atol=1e-5)


def test_sum_adds_its_terms():
    leaf = sx.Sum((jnp.ones((2, 2)), sx.Masked(jnp.full((2, 2), 5.0), jnp.eye(2, dtype=bool))))
    np.testing.assert_array_equal(sx.dense(leaf), [[6, 1], [1, 6]])


def test_dense_and_nbytes_of_a_tree():
    params = {"a": leaves.quantized((4, 4)), "b": jnp.ones(3)}
    assert isinstance(sx.dense(params)["a"], jax.Array)
    assert sx.nbytes(params) == 16 + 16 + 12


def test_quantizing_twice_is_refused():
    from spartax.arrays import verbs

    with pytest.raises(ValueError, match="quantized already"):
        verbs.map_arrays(leaves.quantized((4, 4)), lambda w: w)


def test_map_arrays_reaches_weights_only():
    from spartax.arrays import verbs

    leaf = sx.Sum((leaves.masked((4, 4)), leaves.lowrank((4, 4))))
    doubled = verbs.map_arrays(leaf, lambda w: w * 2)
    np.testing.assert_allclose(
        sx.dense(doubled), 2 * sx.dense(leaf.terms[0]) + 4 * sx.dense(leaf.terms[1]), rtol=1e-5, atol=1e-5
    )
