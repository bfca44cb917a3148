"""N:M matmul: every path gives the product and gradients of the plain one."""

import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.experimental.pallas import mosaic_gpu as plgpu

from spartax.arrays import nm_sparse
from spartax.kernels import paths
from spartax.kernels.nm_matmul import form, gpu, nm_matmul, tpu

pytestmark = pytest.mark.core
# (batch, n, m, inputs, columns, dtype); 37 rows of x are no whole tile, 10 columns neither.
CASES = [
    (37, 2, 4, 64, 10, "float32"),
    (5, 2, 9, 36, 8, "bfloat16"),
    (1, 1, 2, 32, 8, "float16"),
    (4, 3, 3, 9, 5, "float32"),
]


def make(batch, n, m, inputs, columns, dtype, mask=None):
    rng = np.random.default_rng(0)
    if mask is None:
        rank = rng.random((inputs // m, m, columns)).argsort(axis=1).argsort(axis=1)
        mask = (rank < n).reshape(inputs, columns)
    weight = jnp.asarray(rng.standard_normal((inputs, columns)), dtype)
    leaf = nm_sparse(weight, mask, n, m, (0,), (1,))
    x, g = (jnp.asarray(rng.standard_normal((batch, k)), dtype) for k in (inputs, columns))
    return x, leaf.values, leaf.places.data, g, np.where(mask, np.asarray(weight, np.float64), 0), mask


@functools.partial(jax.jit, static_argnums=(0, 1))
def value_and_gradients(path, m, x, values, data, g):
    out, pull = jax.vjp(lambda x, v: nm_matmul(x, v, data, m, path=path, precision="highest"), x, values)
    return out, *pull(g.astype(out.dtype))


@pytest.mark.parametrize("path", ["reference", "xla", "tpu"])
@pytest.mark.parametrize("case", CASES, ids=lambda c: "-".join(map(str, c)))
def test_product_and_both_gradients(path, case):
    _, n, m, inputs, columns, dtype = case
    if path == "tpu" and tpu.misfit(n, m, inputs // m, columns, dtype):
        pytest.skip(tpu.misfit(n, m, inputs // m, columns, dtype))
    made = make(*case)
    check(value_and_gradients(path, m, *made[:4]), case, *made)


def check(found, case, x, values, data, g, dense, mask):
    """Results have the rounding of their dtype, and of sums of as many float32 terms (`close`)."""
    batch, n, m, inputs, columns, _ = case
    x64, g64 = np.asarray(x, np.float64), np.asarray(g, np.float64)
    full = np.where(mask, x64.T @ g64, 0)
    kept = np.sort(np.argsort(~mask.reshape(-1, m, columns), axis=1, kind="stable")[:, :n], axis=1)
    of_values = lambda full: np.moveaxis(np.take_along_axis(full.reshape(-1, m, columns), kept, axis=1), 1, 0)  # noqa: E731
    sizes = abs(x64) @ abs(dense), abs(g64) @ abs(dense.T), of_values(abs(x64).T @ abs(g64))
    for ours, right, size, length, kind in zip(
        found,
        (x64 @ dense, g64 @ dense.T, of_values(full)),
        sizes,
        (inputs, columns, batch),
        (jnp.float32, x.dtype, values.dtype),
    ):
        assert (ours.dtype, ours.shape) == (kind, right.shape)
        close(ours, right, size, length)


def close(ours, right, size, length):
    """Off by a rounding of the result in its dtype, and by at most one of the sizes of its terms for each of them."""
    limit = 2.0**-24 * length * size + float(jnp.finfo(ours.dtype).eps) / 2 * np.abs(right)
    assert (np.abs(np.asarray(ours, np.float64) - right) <= 1.01 * limit).all()


@pytest.mark.parametrize("path", ["reference", "xla"])
def test_bfloat16_that_leaves_transposed(path):
    """XLA has such products on CPU in some layouts only."""
    x, values, data, _, dense, _ = make(5, 6, 16, 16, 33, "bfloat16")
    got = jax.jit(lambda x: nm_matmul(x, values, data, 16, path=path).T)(x)
    x64 = np.asarray(x, np.float64)
    close(got, (x64 @ dense).T, (abs(x64) @ abs(dense)).T, 16)


def test_layout_by_hand():
    """Two of four: rows 1 and 2 of the first group, 0 and 3 of the second; places four to a byte across groups."""
    mask = np.array([0, 1, 1, 0, 1, 0, 0, 1], bool)[:, None]
    leaf = nm_sparse(jnp.arange(8.0)[:, None], mask, 2, 4, (0,), (1,))
    np.testing.assert_array_equal(leaf.values[..., 0], [[1, 4], [2, 7]])
    np.testing.assert_array_equal(leaf.places.data.ravel(), [0b0001, 0b1110])
    np.testing.assert_array_equal(form.unpacked(leaf.places.data, 4, 2)[..., 0], [[1, 0], [2, 3]])


SUBSETS = [[k in kept for k in range(4)] for size in range(3) for kept in itertools.combinations(range(4), size)]


@settings(max_examples=8, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(SUBSETS), min_size=160, max_size=160))
def test_any_mask(groups):
    """Two of four or fewer, groups of zeros included: packed and unpacked bit exact, and multiplied."""
    mask = np.swapaxes(np.array(groups).reshape(16, 10, 4), 1, 2).reshape(64, 10)
    x, values, data, g, dense, _ = make(*CASES[0], mask=mask)
    matrix = form.expanded(values, form.unpacked(data, 4, 16), 4)
    np.testing.assert_array_equal(matrix, dense)
    for path in ("reference", "xla", "tpu"):
        y, dx, _ = value_and_gradients(path, 4, x, values, data, g)
        x64, g64 = np.asarray(x, np.float64), np.asarray(g, np.float64)
        close(y, x64 @ dense, abs(x64) @ abs(dense), 64)
        close(dx, g64 @ dense.T, abs(g64) @ abs(dense.T), 10)


# (batch, n, m, inputs, columns, dtype) that the Mosaic GPU kernel takes: several steps, codes and tiles of everything.
ON_GPU = [(3, 2, 4, 1024, 128, "bfloat16"), (70, 1, 2, 1024, 64, "float16")]
on_gpu = pytest.mark.parametrize("case", ON_GPU, ids=lambda c: f"{c[1]}:{c[2]}")


@on_gpu
def test_gpu_kernels_lower_without_a_gpu(case, monkeypatch):
    monkeypatch.setattr(paths, "interpreted", lambda path: False)
    run = jax.jit(lambda *a: value_and_gradients.__wrapped__("gpu", case[2], *a))
    text = run.trace(*make(*case)[:4]).lower(lowering_platforms=("cuda",)).as_text()
    assert len(re.findall(r"custom_call @mosaic_gpu", text)) == 2


@pytest.mark.skipif(not hasattr(plgpu, "InterpretGPUParams"), reason="this JAX does not interpret Mosaic GPU kernels")
@on_gpu
def test_gpu_kernels_interpreted(case):
    x, values, data, g, dense, _ = make(*case)
    for kernel, left, matrix in ((gpu.matmul, x, dense), (gpu.pullback, g, dense.T)):
        found = kernel(left, values, data, case[2], None, jnp.float32, interpret=plgpu.InterpretGPUParams())
        left = np.asarray(left, np.float64)
        close(found, left @ matrix, abs(left) @ abs(matrix), len(matrix))


@pytest.mark.gpu
@on_gpu
def test_on_a_gpu(case):
    if paths.missing_hopper():
        pytest.skip(paths.missing_hopper())
    made = make(*case)
    check(value_and_gradients("gpu", case[2], *made[:4]), case, *made)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_lowers_for_tpu_ahead_of_time(dtype, monkeypatch):
    monkeypatch.setattr(paths, "interpreted", lambda path: False)
    x, values, data, g, *_ = make(40, 2, 4, 512, 256, dtype)
    run = jax.jit(lambda *a: value_and_gradients.__wrapped__("tpu", 4, *a))
    assert run.trace(x, values, data, g).lower(lowering_platforms=("tpu",)).as_text().count("tpu_custom_call") == 2


def test_tiles_of_the_tpu_kernel_fit():
    """2:4 of a large matrix takes its 256 rows; at 8:16 sums and weights are larger, and fewer rows are taken."""
    assert tpu.tuning(256, 2, 4, 1024, 4096) == (256, 128, 256)
    few = tpu.tuning(256, 8, 16, 256, 4096)
    assert 16 <= few.examples < 256
    # sum, result, values, places and g of one step
    tiles = 4 * 32 * few.examples * 128 * 3 + 2 * 8 * 128 * 256 * (4 * 2 + 1) + 2 * 4 * few.examples * 256
    assert tpu.held(few, 8, 16) == tiles <= tpu.VMEM


def test_kernels_say_what_they_cannot_take():
    assert "cross bytes" in tpu.misfit(2, 8, 16, 8, "float32")
    assert "whose places make a byte" in tpu.misfit(2, 4, 6, 8, "float32")
    assert tpu.misfit(2, 4, 16, 8, "float32") is None
    assert "fit in VMEM" in tpu.misfit(2, 4, 4 * 2047, 2047, "float32")
    assert "fit in VMEM" in tpu.misfit(15, 16, 1024, 1023, "float32")
    assert gpu.misfit(2, 4, 256, 64, "bfloat16") is None
    assert "float32" in gpu.misfit(2, 4, 256, 64, "float32")
    assert "at most 4" in gpu.misfit(4, 16, 256, 64, "bfloat16")
    assert "256 groups and 64 columns" in gpu.misfit(2, 4, 64, 64, "bfloat16")
    assert "256 groups and 64 columns" in gpu.misfit(2, 4, 256, 100, "bfloat16")
