"""`BlockSparse`: known answers, every contraction it takes, and when it is used."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import spartax as sx
from spartax.arrays import block_sparse, verbs
from tests import leaves

pytestmark = pytest.mark.core


def same(fn, weight, x):
    """compressed(fn) on the leaf, through its kernel, equals fn on the dense weight; what `explain` says."""
    with sx.kernels("xla"):
        ours = sx.compressed(fn)(weight, x)
        told = " | ".join(sx.explain(fn, weight, x)[""])
    plain = jax.jit(fn)(sx.dense(weight), x)
    np.testing.assert_allclose(ours, plain, atol=1e-5 * float(jnp.abs(plain).max()))
    return told


def test_stored_blocks_by_hand():
    """Blocks 2 x 2 of a 3 x 5 matrix: the corner block is one entry, padded; an empty column of blocks."""
    x = jnp.arange(1.0, 16.0).reshape(3, 5)
    mask = np.zeros((3, 5), bool)
    mask[0, 1] = mask[2, 4] = mask[2, 0] = True
    leaf = block_sparse(x, mask, (2, 2), (0,), (1,))
    np.testing.assert_array_equal(leaf.values, [[[0, 2], [0, 0]], [[11, 0], [0, 0]], [[15, 0], [0, 0]]])
    np.testing.assert_array_equal(leaf.rows, [0, 1, 1])
    np.testing.assert_array_equal(leaf.counts, [2, 0, 1])
    np.testing.assert_array_equal(sx.dense(leaf), jnp.where(mask, x, 0))
    assert sx.nbytes(leaf) == 3 * 16 + 3 + 3


DOTS = {
    "x @ w": ("bi,io->bo", (5, 12), (12, 10), (0,), (1,)),
    "w @ x": ("oi,ib->ob", (12, 5), (10, 12), (1,), (0,)),
    "transposed": ("bo,io->bi", (5, 10), (12, 10), (0,), (1,)),
    "batch of rows": ("abi,io->abo", (2, 3, 12), (12, 10), (0,), (1,)),
    "heads out": ("bi,ihd->hbd", (5, 12), (12, 2, 5), (0,), (1, 2)),
    "heads in, other order": ("bdh,hdo->ob", (5, 6, 2), (2, 6, 10), (0, 1), (2,)),
    "inputs in the middle": ("bi,oip->bpo", (5, 12), (5, 12, 2), (1,), (2, 0)),
}


@pytest.mark.parametrize("name", DOTS)
def test_products_of_any_layout(name):
    spec, x_shape, w_shape, inputs, outputs = DOTS[name]
    mask = np.random.default_rng(0).random(w_shape) < 0.1
    weight = block_sparse(leaves.normal(*w_shape), mask, (4, 4), inputs, outputs)
    order = (lambda w, x: (w, x)) if spec[0] == "o" else (lambda w, x: (x, w))
    assert "block-sparse matmul, xla" in same(
        lambda w, x: jnp.einsum(spec, *order(w, x)), weight, leaves.normal(*x_shape, seed=5)
    )


def test_one_weight_a_layer_in_a_product_and_in_a_scan():
    one = leaves.blocks((12, 10))
    stack = jax.tree.map(lambda v: jnp.stack([v, v]), one)
    stack = dataclasses.replace(stack, values=stack.values * jnp.array([1, -2.0])[:, None, None, None])
    x = leaves.normal(2, 5, 12, seed=5)
    assert "block-sparse" in same(lambda w, x: jnp.einsum("lbi,lio->lbo", x, w), stack, x)
    assert "block-sparse" in same(lambda w, x: lax.scan(lambda c, wx: (c, wx[1] @ wx[0]), 0, (w, x))[1], stack, x)


CONVS = {
    "1x1": ({"window_strides": (1, 1), "padding": "VALID"}, (1, 1, 8, 6)),
    "1x1 strided": ({"window_strides": (2, 2), "padding": "SAME"}, (1, 1, 8, 6)),
    "dilated": ({"window_strides": (2, 1), "padding": ((2, 1), (0, 3)), "rhs_dilation": (2, 1)}, (3, 2, 8, 6)),
    "transposed": ({"window_strides": (1, 1), "padding": ((2, -1), (0, 3)), "lhs_dilation": (2, 2)}, (3, 3, 8, 6)),
}


@pytest.mark.parametrize("name", CONVS)
def test_convolutions(name):
    options, shape = CONVS[name]
    numbers = ("NHWC", "HWIO", "NHWC")
    run = lambda w, x: lax.conv_general_dilated(x, w, dimension_numbers=numbers, **options)  # noqa: E731
    assert "block-sparse" in same(run, leaves.blocks(shape), leaves.normal(2, 6, 5, 8, seed=5))


def test_convolution_stored_output_first():
    mask = np.random.default_rng(0).random((6, 8, 3, 3)) < 0.05
    weight = block_sparse(leaves.normal(6, 8, 3, 3), mask, (8, 3), (2, 3, 1), (0,))
    assert "block-sparse" in same(lambda w, x: lax.conv(x, w, (1, 2), "SAME"), weight, leaves.normal(2, 8, 6, 5))


def test_other_contractions_are_made_dense():
    told = same(lambda w, x: jnp.einsum("bio,io->b", x, w), leaves.blocks((12, 10)), leaves.normal(5, 12, 10))
    assert "made dense" in told or "dense" in told
    assert "block-sparse matmul" not in told


def test_default_is_what_was_measured():
    """On CPU: large float32 matrices with few blocks; everything else says it is computed dense."""

    def plan(density, side, batch, size=1024, dtype=jnp.float32):
        n, blocks = max(1, round(density * (size // side) ** 2)), size // side
        like = jax.ShapeDtypeStruct
        leaf = sx.BlockSparse(
            like((n, side, side), dtype), like((n,), jnp.uint8), like((blocks,), jnp.uint8), (size, size), 1, (0, 1)
        )
        use = verbs.Use.of_dot(leaf, like((batch, size), dtype), (((1,), (0,)), ((), ())))
        return verbs.plan(leaf, use)

    if jax.default_backend() != "cpu":
        pytest.skip("the measured table is for CPU")
    assert "xla" in plan(0.1, 64, 256).kernel
    assert plan(0.1, 64, 256).macs == round(256 * 1024**2 * 26 / 256)
    for slow in (
        plan(0.5, 64, 256),
        plan(0.1, 4, 256),
        plan(0.1, 64, 256, size=256),
        plan(0.1, 64, 256, 1024, "bfloat16"),
    ):
        assert slow.kernel is None
        assert "computed dense" in slow.why
    with sx.kernels("pallas"):
        assert "tpu" in plan(0.5, 64, 256).kernel
        assert "not multiples of 8" in plan(0.5, 4, 256).why


@pytest.mark.parametrize("path", ["auto", "xla"])
def test_a_weight_without_a_block(path):
    packed = sx.pack(sx.Masked(jnp.ones((64, 64)), jnp.zeros((64, 64), bool)))
    assert (type(packed), packed.values.shape[0]) == (sx.BlockSparse, 0)
    run = sx.compressed(lambda w, x: (x @ w, w @ x.T))
    with sx.kernels(path):
        np.testing.assert_array_equal(run(packed, jnp.ones((3, 64)))[0], np.zeros((3, 64)))
        np.testing.assert_array_equal(run(packed, jnp.ones((3, 64)))[1], np.zeros((64, 3)))


def test_reshape_keeps_the_matrix():
    leaf = leaves.blocks((3, 3, 4, 6))
    assert verbs.reshape(leaf, (9, 4, 6)).shape == (9, 4, 6)
    assert verbs.reshape(leaf, (36, 2, 3)).view.columns == 2
    assert verbs.reshape(leaf, (18, 12)) is None


def test_bad_input():
    with pytest.raises(ValueError, match="block must be an integer"):
        block_sparse(jnp.ones((4, 4)), np.ones((4, 4), bool), (0, 2), (0,), (1,))
    with pytest.raises(ValueError, match=r"each of 2 axes once; got \(0,\) and \(0,\)"):
        block_sparse(jnp.ones((4, 4)), np.ones((4, 4), bool), (2, 2), (0,), (0,))
    with pytest.raises(ValueError, match="outside jit"):
        jax.jit(lambda x: block_sparse(x, x > 0, (2, 2), (0,), (1,)))(jnp.ones((4, 4)))
