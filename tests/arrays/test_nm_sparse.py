"""`NMSparse`, and which form `pack` chooses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import spartax as sx
from spartax.arrays import nm_sparse, packed, smallest
from spartax.prune import block, n_of_m
from spartax.records import Layout
from tests import leaves

pytestmark = pytest.mark.core
FLAX, TORCH = Layout((0,), (1,)), Layout((1,), (0,))


def masked(shape, pattern, keep, layout, dtype=jnp.float32):
    weight = leaves.normal(*shape).astype(dtype)
    return sx.Masked(weight, pattern(jnp.abs(weight), keep, layout))


def test_two_of_four_takes_half_the_bytes_and_one_bit_an_entry():
    leaf = masked((64, 32), n_of_m(2, 4), 1024, FLAX)
    small = sx.pack(leaf)
    assert (type(small), small.n, small.m) == (sx.NMSparse, 2, 4)
    assert sx.nbytes(small) == 1024 * 4 + 64 * 32 // 8
    np.testing.assert_array_equal(sx.dense(small), sx.dense(leaf))


@pytest.mark.parametrize(
    ("shape", "layout", "axis"),
    [((32, 64), TORCH, 1), ((3, 3, 8, 6), Layout((0, 1, 2), (3,)), 2), ((6, 8, 3, 3), Layout((2, 3, 1), (0,)), 1)],
)
def test_the_axis_of_the_groups_is_found(shape, layout, axis):
    leaf = masked(shape, n_of_m(1, 4), int(np.prod(shape)) // 4, layout)
    small = sx.pack(leaf)
    assert (type(small), small.n, small.m) == (sx.NMSparse, 1, 4)
    assert small.order[axis] == small.view.cut - 1  # the fastest of the inputs
    np.testing.assert_array_equal(sx.dense(small), sx.dense(leaf))


def test_blocks_are_found_at_their_size():
    leaf = masked((128, 96), block((32, 16)), 128 * 96 // 8, FLAX)
    small = sx.pack(leaf)
    assert (type(small), small.block) == (sx.BlockSparse, (32, 16))
    assert sx.nbytes(small) == 128 * 96 // 8 * 4 + 3 + 6
    np.testing.assert_array_equal(sx.dense(small), sx.dense(leaf))


def test_whole_rows_and_columns_are_found():
    """26 rows of 256 each, a place of two bytes for each and one count; 26 columns, as many places and 256 counts."""
    rows = np.zeros((256, 256), bool)
    rows[np.random.default_rng(0).permutation(256)[:26]] = True
    for mask, sides, extra in ((rows, (1, 256), 2 * 26 + 2), (rows.T, (256, 1), 26 + 256)):
        leaf = sx.Masked(leaves.normal(256, 256), jnp.asarray(mask))
        small = sx.pack(leaf)
        assert (type(small), small.block) == (sx.BlockSparse, sides)
        assert sx.nbytes(small) == 26 * 256 * 4 + extra
        np.testing.assert_array_equal(sx.dense(small), sx.dense(leaf))
        told = sx.explain(lambda w, x: x @ w, small, jnp.ones((2, 256)))[""][0]
        assert "stored small, computed dense" in told


def test_pruned_int4_in_groups_of_four():
    """Half the codes at half a byte, one bit an entry, and the scales; the codes are packed along another axis."""
    codes, mask = leaves.quantized((64, 32), 4), masked((64, 32), n_of_m(2, 4), 1024, FLAX).mask
    small = sx.pack(sx.Masked(codes, mask))
    assert isinstance(small.codes, sx.NMSparse)
    assert sx.nbytes(small) == 512 + 256 + 32 * 4
    np.testing.assert_array_equal(sx.dense(small), sx.dense(sx.Masked(codes, mask)))


@pytest.mark.parametrize("kept", [0.0, 0.02, 0.3, 1.0])
def test_the_smallest_form_is_chosen(kept):
    """The bytes that are counted are the bytes that are taken, and nothing else that was tried is smaller."""
    leaf = leaves.masked((40, 24), kept)
    mask = np.asarray(leaf.mask)
    forms = smallest.structured_bytes(mask, 32)
    small, bits = sx.pack(leaf), smallest.bitmask_bytes(mask, 32)
    assert sx.nbytes(small) == min(bits, *forms.values())
    assert sx.nbytes(smallest.compact(leaf.weight, leaf.mask)) == bits
    np.testing.assert_array_equal(sx.dense(small), sx.dense(leaf))
    for form in [f for f in forms if isinstance(f, smallest.Groups)][:3]:
        assert sx.nbytes(nm_sparse(leaf.weight, leaf.mask, *form)) == forms[form]


def test_signs_of_zero_and_infinities_survive():
    weight = jnp.array([[-0.0, jnp.inf], [1.0, jnp.nan], [2.0, 3.0], [4.0, -jnp.inf]])
    mask = jnp.array([[True, True], [False, False], [False, False], [True, True]])
    leaf = sx.Masked(weight, mask)
    ours = sx.dense(nm_sparse(weight, mask, 2, 4, (0,), (1,)))
    np.testing.assert_array_equal(np.asarray(ours).view(np.int32), np.asarray(sx.dense(leaf)).view(np.int32))


def same(fn, weight, x):
    with sx.kernels("xla"):
        ours, told = sx.compressed(fn)(weight, x), " | ".join(sx.explain(fn, weight, x)[""])
    plain = jax.jit(fn)(sx.dense(weight), x)
    np.testing.assert_allclose(ours, plain, atol=1e-5 * float(jnp.abs(plain).max()))
    return told


def test_contractions():
    x = leaves.normal(5, 12, seed=5)
    assert "1:4 matmul, xla" in same(lambda w, x: x @ w, leaves.groups((12, 10)), x)
    assert "1:4 matmul" in same(lambda w, x: w.T @ x.T, leaves.groups((12, 10)), x)
    assert "1:4 matmul" not in same(lambda w, x: x @ w.T, leaves.groups((10, 12)), x)
    stack = jax.tree.map(lambda v: jnp.stack([v, v]), leaves.groups((12, 10)))
    assert "1:4 matmul" in same(lambda w, x: jnp.einsum("lbi,lio->lbo", x, w), stack, jnp.stack([x, 2 * x]))
    convolve = lambda w, x: lax.conv_general_dilated(  # noqa: E731
        x, w, (2, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    assert "1:4 matmul" in same(convolve, leaves.groups((3, 3, 4, 6)), leaves.normal(2, 6, 5, 4))


def test_by_default_it_is_storage():
    told = sx.explain(lambda w, x: x @ w, leaves.groups((12, 10)), leaves.normal(5, 12))[""]
    assert "stored small, computed dense: no matrix unit here skips 1:4 zeros" in " ".join(told)


def test_bad_input():
    weight, mask = jnp.ones((8, 2)), np.ones((8, 2), bool)
    with pytest.raises(ValueError, match="keeps 4 of a group of 4 inputs; at most n = 2"):
        nm_sparse(weight, mask, 2, 4, (0,), (1,))
    with pytest.raises(ValueError, match="n must be"):
        nm_sparse(weight, mask, 5, 4, (0,), (1,))
    with pytest.raises(ValueError, match="outside jit"):
        jax.jit(sx.pack)(leaves.masked((4, 4)))


def test_places_of_large_groups():
    """256 places take all eight bits."""
    mask = np.zeros((512, 2), bool)
    mask[[255, 256], :] = True
    leaf = nm_sparse(leaves.normal(512, 2), mask, 1, 256, (0,), (1,))
    assert leaf.places.bits == 8
    assert isinstance(leaf.places, packed.Packed)
    np.testing.assert_array_equal(sx.dense(leaf), np.where(mask, leaves.normal(512, 2), 0))
