"""N:M matmul: every path gives the product and gradients of the plain one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spartax.arrays import nm_sparse
from spartax.kernels import paths
from spartax.kernels.nm_matmul import form, nm_matmul, tpu

pytestmark = pytest.mark.core
# (batch, n, m, inputs, columns, dtype); 37 rows of x are no whole tile, 10 columns neither.
CASES = [
    (37, 2, 4, 64, 10, "float32"),
    (1, 1, 4, 32, 16, "float32"),
    (5, 4, 16, 64, 8, "bfloat16"),
    (3, 1, 2, 32, 8, "float16"),
    (4, 3, 3, 9, 5, "float32"),
]


def make(batch, n, m, inputs, columns, dtype, seed=0):
    rng = np.random.default_rng(seed)
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
    batch, n, m, inputs, columns, dtype = case
    if path == "tpu" and tpu.misfit(n, m, inputs // m, columns, dtype):
        pytest.skip(tpu.misfit(n, m, inputs // m, columns, dtype))
    x, values, data, g, dense, mask = make(*case)
    found = value_and_gradients(path, m, x, values, data, g)
    x64, g64 = np.asarray(x, np.float64), np.asarray(g, np.float64)
    full = np.where(mask, x64.T @ g64, 0)
    kept = np.sort(np.argsort(~mask.reshape(-1, m, columns), axis=1, kind="stable")[:, :n], axis=1)
    wanted = np.moveaxis(np.take_along_axis(full.reshape(-1, m, columns), kept, axis=1), 1, 0)
    for ours, right, length, kind in zip(
        found, (x64 @ dense, g64 @ dense.T, wanted), (inputs, columns, batch), (jnp.float32, x.dtype, values.dtype)
    ):
        assert (ours.dtype, ours.shape) == (kind, right.shape)
        rounding = float(jnp.finfo(kind).eps) * np.abs(right).max(initial=1.0)
        sums = float(jnp.finfo(jnp.float32).eps) * length * 10
        np.testing.assert_allclose(np.asarray(ours, np.float64), right, rtol=0, atol=rounding + sums)


def test_layout_by_hand():
    """Two of four: rows 1 and 2 of the first group, 0 and 3 of the second; places four to a byte across groups."""
    mask = np.array([0, 1, 1, 0, 1, 0, 0, 1], bool)[:, None]
    leaf = nm_sparse(jnp.arange(8.0)[:, None], mask, 2, 4, (0,), (1,))
    np.testing.assert_array_equal(leaf.values[..., 0], [[1, 4], [2, 7]])
    np.testing.assert_array_equal(leaf.places.data.ravel(), [0b0001, 0b1110])
    np.testing.assert_array_equal(form.unpacked(leaf.places.data, 4, 2)[..., 0], [[1, 0], [2, 3]])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_lowers_for_tpu_ahead_of_time(dtype, monkeypatch):
    monkeypatch.setattr(paths, "interpreted", lambda path: False)
    x, values, data, g, *_ = make(40, 2, 4, 512, 256, dtype)
    run = jax.jit(lambda *a: value_and_gradients.__wrapped__("tpu", 4, *a))
    assert run.trace(x, values, data, g).lower(lowering_platforms=("tpu",)).as_text().count("tpu_custom_call") == 2


def test_the_tpu_kernel_says_what_it_cannot_take():
    assert "cross bytes" in tpu.misfit(2, 8, 16, 8, "float32")
    assert "whose places make a byte" in tpu.misfit(2, 4, 6, 8, "float32")
    assert tpu.misfit(2, 4, 16, 8, "float32") is None
