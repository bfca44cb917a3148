"""Block-sparse matmul: every path gives the product and gradients of the plain one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.experimental.pallas import mosaic_gpu as plgpu

from spartax.kernels import paths
from spartax.kernels.block_sparse_matmul import Structure, block_sparse_matmul, gpu, tpu, xla

pytestmark = pytest.mark.core
# (batch, rows of blocks, columns of blocks, block, dtype): one row of x, ragged tiles, a single block, 16-bit floats.
CASES = [
    (1, 5, 4, (8, 16), "float32"),
    (67, 5, 3, (16, 8), "float32"),
    (300, 2, 3, (8, 8), "float32"),
    (300, 1, 1, (8, 8), "float32"),
    (70, 3, 4, (16, 16), "bfloat16"),
    (3, 3, 2, (16, 16), "float16"),
]


def make(batch, rows, columns, block, dtype, occupied=None, seed=0):
    """Random blocks; the first column of blocks is empty unless it is the only one."""
    rng = np.random.default_rng(seed)
    if occupied is None:
        occupied = rng.random((rows, columns)) < 0.5
        occupied[:, 0], occupied[0, -1] = False, True
    column, row = np.nonzero(occupied.T)
    x = jnp.asarray(rng.standard_normal((batch, rows * block[0])), dtype)
    values = jnp.asarray(rng.standard_normal((len(row), *block)), dtype)
    counts = np.bincount(column, minlength=columns)
    return x, values, Structure(jnp.asarray(row.astype(np.uint8)), jnp.asarray(counts.astype(np.uint8)))


def oracle(x, values, structure):
    """The dense matrix, filled block by block, in float64."""
    r, c = values.shape[1:]
    dense = np.zeros((x.shape[1], len(structure.counts) * c))
    places = [(i, j) for j, n in enumerate(np.asarray(structure.counts)) for i in range(n)]
    for value, row, (_, j) in zip(np.asarray(values, np.float64), np.asarray(structure.rows), places):
        dense[row * r : (row + 1) * r, j * c : (j + 1) * c] = value
    return dense


@functools.partial(jax.jit, static_argnums=0)
def value_and_gradients(path, x, values, structure, g):
    out, pull = jax.vjp(lambda x, v: block_sparse_matmul(x, v, structure, path=path, precision="highest"), x, values)
    return out, *pull(g.astype(out.dtype))


def expected(x, values, structure, g, size=lambda v: v):
    """Product and gradients in float64, of the `size` of every number."""
    x64, g64, dense = (size(np.asarray(v, np.float64)) for v in (x, g, oracle(x, values, structure)))
    r, c = values.shape[1:]
    columns = np.repeat(np.arange(len(structure.counts)), structure.counts)
    full = x64.T @ g64
    blocks = [full[i * r : (i + 1) * r, j * c : (j + 1) * c] for i, j in zip(np.asarray(structure.rows, int), columns)]
    return x64 @ dense, g64 @ dense.T, np.stack(blocks) if blocks else np.zeros(values.shape)


def check(path, case):
    x, values, structure = case
    width = len(structure.counts) * values.shape[2]
    g = jnp.asarray(np.random.default_rng(9).standard_normal((len(x), width)), x.dtype)
    found = value_and_gradients(path, x, values, structure, g)
    wanted, sizes = expected(x, values, structure, g), expected(x, values, structure, g, np.abs)
    lengths = (x.shape[1], width, len(x))  # of the three contractions
    for ours, right, size, length, kind in zip(found, wanted, sizes, lengths, (jnp.float32, x.dtype, values.dtype)):
        assert (ours.dtype, ours.shape) == (kind, right.shape)
        close(ours, right, size, length)


def close(ours, right, size, length):
    """Off by a rounding of the result in its dtype, and by at most one of the sizes of its terms for each of them."""
    limit = 2.0**-24 * length * size + float(jnp.finfo(ours.dtype).eps) / 2 * np.abs(right)
    assert (np.abs(np.asarray(ours, np.float64) - right) <= 1.01 * limit).all()


@pytest.mark.parametrize("path", ["reference", "xla", "tpu"])
@pytest.mark.parametrize("case", CASES, ids=lambda c: "-".join(map(str, (*c[:3], *c[3], c[4]))))
def test_product_and_both_gradients(path, case):
    check(path, make(*case))


@settings(max_examples=8, deadline=None, derandomize=True)
@given(st.lists(st.booleans(), min_size=12, max_size=12), st.integers(0, 99))
def test_any_occupation(kept, seed):
    """Five blocks on any places of the grid, one shape: the places are data."""
    order = np.argsort(np.random.default_rng(seed).random(12) - np.asarray(kept))[:5]
    occupied = np.isin(np.arange(12), order).reshape(4, 3)
    check("xla", make(70, 4, 3, (8, 8), "float32", occupied, seed))


def test_columns_of_every_depth():
    """0 to 13 blocks in a column: each branch of the loop, full and padded."""
    occupied = np.arange(13)[:, None] < np.arange(14)
    check("xla", make(70, 13, 14, (8, 8), "float32", occupied))


def test_bfloat16_that_leaves_transposed():
    """XLA has such a plain product on CPU in some layouts only."""
    x, values, structure = make(5, 2, 3, (8, 16), "bfloat16")
    got = jax.jit(lambda x: block_sparse_matmul(x, values, structure, path="reference").T)(x)
    x64, dense = np.asarray(x, np.float64), oracle(x, values, structure)
    close(got, (x64 @ dense).T, (abs(x64) @ abs(dense)).T, 16)


def test_more_blocks_than_a_count_can_hold():
    """300 blocks in columns of 3: the counts are of 8 bits, their sums are not."""
    _, _, structure = make(1, 3, 100, (1, 1), "float32", np.ones((3, 100), bool))
    np.testing.assert_array_equal(structure.columns, np.repeat(np.arange(100), 3))
    np.testing.assert_array_equal(structure.starts, 3 * np.arange(100))


def test_nothing_stored():
    x, values, structure = make(4, 3, 2, (8, 8), "float32", np.zeros((3, 2), bool))
    out, dx, dvalues = value_and_gradients("xla", x, values, structure, jnp.ones((4, 16)))
    assert not out.any()
    assert not dx.any()
    assert dvalues.shape == (0, 8, 8)


def test_vmap_over_activations():
    x, values, structure = make(6, 3, 2, (8, 8), "float32")
    apart = jax.vmap(lambda x: block_sparse_matmul(x, values, structure))(x.reshape(2, 3, -1))
    np.testing.assert_allclose(apart.reshape(6, -1), block_sparse_matmul(x, values, structure), rtol=1e-5, atol=1e-5)


def test_depths_grow_by_at_most_a_quarter():
    sizes = np.array(xla.depths(100))
    assert sizes[-1] >= 100
    assert (np.diff(sizes) <= np.maximum(1, sizes[:-1] / 4)).all()


@pytest.mark.parametrize(
    ("platform", "path", "block", "dtype"),
    [
        ("tpu", "tpu", (128, 128), "float32"),
        ("tpu", "tpu", (32, 16), "bfloat16"),
        ("cuda", "gpu", (64, 128), "bfloat16"),
    ],
)
def test_lowers_ahead_of_time(platform, path, block, dtype, monkeypatch):
    """The compiler of the platform takes the kernel and its gradients, without the device."""
    monkeypatch.setattr(paths, "interpreted", lambda path: False)
    x, values, structure = make(200, 3, 2, block, dtype)
    run = jax.jit(lambda *a: value_and_gradients.__wrapped__(path, *a))
    lowered = run.trace(x, values, structure, jnp.zeros((200, 2 * block[1]))).lower(lowering_platforms=(platform,))
    assert lowered.as_text().count("mosaic") >= 3 or lowered.as_text().count("tpu_custom_call") >= 3


@pytest.mark.skipif(not hasattr(plgpu, "InterpretGPUParams"), reason="this JAX does not interpret Mosaic GPU kernels")
def test_gpu_kernel_interpreted():
    x, values, structure = make(100, 3, 2, (64, 64), "bfloat16")
    g = jnp.asarray(np.random.default_rng(9).standard_normal((100, 128)), jnp.bfloat16)
    wanted = expected(x, values, structure, g)
    options = {"interpret": plgpu.InterpretGPUParams()}
    product = gpu.matmul(x, values, structure, None, jnp.dtype("float32"), **options)
    sizes = expected(x, values, structure, g, np.abs)
    close(product, wanted[0], sizes[0], x.shape[1])
    close(gpu.sampled(x, g, structure, (64, 64), **options), wanted[2], sizes[2], len(x))


@pytest.mark.gpu
@pytest.mark.parametrize("block", [(64, 64), (128, 64), (64, 256)])
def test_on_a_gpu(block):
    if paths.missing_hopper():
        pytest.skip(paths.missing_hopper())
    check("gpu", make(300, 5, 4, block, "bfloat16"))


def test_kernels_say_what_they_cannot_take():
    assert "float32" in gpu.misfit((64, 64), jnp.float32)
    assert "(32, 64)" in gpu.misfit((32, 64), jnp.bfloat16)
    assert gpu.misfit((128, 64), jnp.float16) is None
    assert "multiples of 8" in tpu.misfit((12, 16), 5, jnp.float32)
    assert "scalar memory" in tpu.misfit((8, 8), 2**17, jnp.float32)
    assert tpu.misfit((32, 128), 5, jnp.bfloat16) is None
