"""A compressed matrix and a low-rank one in one product: every path gives `x (W + U V)` and its gradients."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.experimental.pallas import mosaic_gpu as plgpu

import spartax as sx
from spartax.arrays import NMSparse, block_sparse, nm_sparse, packed, verbs
from spartax.kernels import paths
from spartax.kernels.block_sparse_matmul import Structure
from spartax.kernels.lowrank_residual_matmul import (
    Blocks,
    Codes,
    Dense,
    Groups,
    choose,
    gpu,
    lowrank_residual_matmul,
    tpu,
)
from spartax.kernels.quantized_matmul import Form
from tests.kernels.test_quantized_matmul import staged_product

pytestmark = pytest.mark.core
K, O, RANK = 512, 48, 3
FORMS = ("dense", "int8", "int4 in groups", "int4 with zero points", "2:4", "blocks")


def codes(rng, bits, groups, zero, outputs=O):
    low = -(2 ** (bits - 1))
    values = rng.integers(low, -low, (outputs, K))
    packed = values if bits == 8 else (values[:, ::2] - low) | (values[:, 1::2] - low) << 4
    scale = jnp.asarray(rng.uniform(0.1, 0.2, (outputs, groups)), jnp.float32)
    zeros = jnp.asarray(rng.integers(-3, 3, (outputs, groups)), jnp.int8) if zero else None
    data = jnp.asarray(packed, jnp.int8 if bits == 8 else jnp.uint8)
    return Codes(data, scale, zeros, Form(K, bits, 0 if bits == 8 else low))


def make(form, dtype="float32", seed=0, kept=None, outputs=O):
    """(base, its matrix in float64)."""
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((K, outputs))
    if form == "dense":
        base = Dense(jnp.asarray(weight, dtype))
    elif form == "2:4":
        mask = rng.random((K // 4, 4, outputs)).argsort(1).argsort(1).reshape(K, outputs) < 2
        leaf = nm_sparse(jnp.asarray(weight, dtype), mask, 2, 4, (0,), (1,))
        base = Groups(leaf.values, leaf.places.data, 4)
    elif form == "blocks":
        kept = rng.random((K // 32, outputs // 16)) < 0.4 if kept is None else kept
        mask = np.kron(kept, np.ones((32, 16), bool))
        leaf = block_sparse(jnp.asarray(weight, dtype), mask, (32, 16), (0,), (1,))
        base = Blocks(leaf.values, Structure(leaf.rows, leaf.counts))
    else:
        base = codes(rng, 8 if form == "int8" else 4, 2 if "groups" in form else 1, "zero" in form, outputs)
    return base, np.asarray(base.dense(K), np.float64)


def draw(batch, dtype, seed=1, outputs=O, rank=RANK):
    rng = np.random.default_rng(seed)
    return [
        jnp.asarray(rng.standard_normal(s), dtype) for s in ((batch, K), (K, rank), (rank, outputs), (batch, outputs))
    ]


@functools.partial(jax.jit, static_argnames=("path", "static"))
def value_and_gradients(x, u, v, g, arrays, path, static):
    base = static[0](*arrays, *static[1:])
    out, pull = jax.vjp(lambda x, u, v: lowrank_residual_matmul(x, base, u, v, path=path, precision="highest"), x, u, v)
    return out, *pull(g.astype(out.dtype))


def run(path, base, x, u, v, g):
    arrays = tuple(a for a in base if not isinstance(a, Form | int))
    static = (type(base), *(a for a in base if isinstance(a, Form | int)))
    return value_and_gradients(x, u, v, g, arrays, path, static)


def check(path, base, matrix, dtype, batch, seed=1):
    """Results have the rounding of their dtype and of sums of as many float32 terms; `x U` is rounded to dtype once."""
    outputs = matrix.shape[1]
    x, u, v, g = draw(batch, dtype, seed, outputs)
    found = run(path, base, x, u, v, g)
    x64, u64, v64, g64 = (np.asarray(a, np.float64) for a in (x, u, v, g))
    wanted = x64 @ (matrix + u64 @ v64), g64 @ (matrix + u64 @ v64).T, x64.T @ (g64 @ v64.T), (x64 @ u64).T @ g64
    for ours, right, length, kind in zip(found, wanted, (K, outputs, batch, batch), (jnp.float32, dtype, dtype, dtype)):
        assert (ours.dtype, ours.shape) == (jnp.dtype(kind), right.shape)
        rounding = 2 * RANK * float(jnp.finfo(dtype).eps) * np.abs(right).max(initial=1.0)
        sums = float(jnp.finfo(jnp.float32).eps) * length * 20
        np.testing.assert_allclose(np.asarray(ours, np.float64), right, rtol=0, atol=rounding + sums)


@pytest.mark.parametrize("path", ["reference", "xla", "tpu"])
@pytest.mark.parametrize("form", FORMS)
def test_product_and_gradients(form, path):
    base, matrix = make(form)
    check(path, base, matrix, "float32", 37)


@pytest.mark.parametrize("path", ["xla", "tpu"])
@pytest.mark.parametrize("form", ["dense", "int8", "2:4", "blocks"])
def test_bfloat16(form, path):
    base, matrix = make(form, "bfloat16")
    check(path, base, matrix, "bfloat16", 5)


@settings(max_examples=6, deadline=None, derandomize=True)
@given(st.lists(st.booleans(), min_size=48, max_size=48), st.integers(0, 99))
def test_any_occupation(kept, seed):
    """Seven blocks anywhere: columns of blocks that hold none still get their low-rank part."""
    order = np.argsort(np.random.default_rng(seed).random(48) - np.asarray(kept))[:7]
    base, matrix = make("blocks", seed=seed, kept=np.isin(np.arange(48), order).reshape(16, 3))
    check("tpu", base, matrix, "float32", 4, seed)


@pytest.mark.parametrize("form", ["int4 in groups", "blocks"])
def test_gradient_in_the_floats_of_the_weight(form):
    base, _ = make(form)
    x, u, v, g = draw(6, "float32")
    name = "scale" if form.startswith("int4") else "values"

    def total(floats, path):
        return jnp.sum(g * lowrank_residual_matmul(x, base._replace(**{name: floats}), u, v, path=path))

    grads = [jax.jit(jax.grad(total), static_argnums=1)(getattr(base, name), p) for p in ("reference", "xla", "tpu")]
    assert float(jnp.abs(grads[0]).max()) > 1
    for other in grads[1:]:
        np.testing.assert_allclose(other, grads[0], rtol=0, atol=1e-5 * float(jnp.abs(grads[0]).max()))


@pytest.mark.parametrize("form", FORMS)
def test_lowers_for_tpu_as_one_kernel(form):
    """The low-rank term is inside: one custom call, and no addition of two results behind it."""
    base, _ = make(form)
    x, u, v, _ = draw(40, "float32")
    run = jax.jit(lambda x: tpu.matmul(x, base, x @ u, v, None))
    text = run.trace(x).lower(lowering_platforms=("tpu",)).as_text()
    assert text.count("tpu_custom_call") == 1
    assert not re.search(r"stablehlo.add .*tensor<40x48xf32>", text)


# (batch, outputs, rank, base): several tiles of each somewhere; ranks end inside a tile of 32, of 64, a third of 32.
ON_GPU = [(70, 64, 3, "int8"), (5, 128, 40, "int4 in groups"), (3, 64, 70, "int4 with zero points")]
on_gpu = pytest.mark.parametrize("case", ON_GPU, ids=lambda case: case[-1])


def gpu_case(batch, outputs, rank, form):
    """(arguments of the kernel, what it should give)."""
    base, matrix = make(form, outputs=outputs)
    x, _, v, _ = draw(batch, "bfloat16", outputs=outputs, rank=rank)
    t = jnp.asarray(np.random.default_rng(3).standard_normal((batch, rank)), "bfloat16")
    wide = lambda a: np.asarray(a, np.float64)  # noqa: E731
    return (x, base, t, v, None), wide(x) @ matrix + wide(t) @ wide(v)


def close_on_gpu(ours, wanted):
    """16-bit products are exact, sums are float32."""
    limit = 4 * np.sqrt(K) * 2.0**-24 * np.abs(wanted).max()
    np.testing.assert_allclose(np.asarray(ours, np.float64), wanted, rtol=0, atol=limit)


@on_gpu
def test_lowers_for_cuda_as_one_kernel(case):
    """The low-rank term is inside, whatever the scales: one custom call, and no addition of two results behind it."""
    (x, base, t, v, _), _ = gpu_case(*case)
    run = jax.jit(lambda x, t, v: gpu.matmul(x, base, t, v, None))
    text = run.trace(x, t, v).lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("custom_call @mosaic_gpu") == 1
    assert not re.search(r"stablehlo.add %.*xf32>", text)


@pytest.mark.skipif(not hasattr(plgpu, "InterpretGPUParams"), reason="this JAX does not interpret Mosaic GPU kernels")
@on_gpu
def test_gpu_kernel_interpreted(case, monkeypatch):
    monkeypatch.setattr(plgpu, "wgmma", staged_product)
    args, wanted = gpu_case(*case)
    close_on_gpu(gpu.matmul(*args, interpret=plgpu.InterpretGPUParams()), wanted)


@pytest.mark.gpu
@on_gpu
def test_gpu_kernel_on_a_gpu(case):
    if paths.missing_hopper():
        pytest.skip(paths.missing_hopper())
    (x, base, t, v, _), wanted = gpu_case(*case)
    close_on_gpu(jax.jit(lambda x, t, v: gpu.matmul(x, base, t, v, None))(x, t, v), wanted)
    check("gpu", *make(case[-1], outputs=case[1]), "bfloat16", case[0])


def test_what_is_chosen():
    on_tpu, on_gpu, on_cpu = (paths.Choice(p, "") for p in ("tpu", "gpu", "xla"))
    kinds = (Dense, Codes, Groups, Blocks)
    assert [choose(on_tpu, k).path for k in kinds] == ["tpu"] * 4
    assert [choose(on_gpu, k).path for k in kinds] == [None, "gpu", None, None]
    assert [choose(c, Codes).path for c in (on_cpu, paths.Choice(None, "slow"))] == [None] * 2
    assert "to Codes, not to Blocks" in choose(on_gpu, Blocks).why


def test_other_bases_have_no_gpu_kernel():
    x, u, v, _ = draw(3, "bfloat16")
    for form in ("dense", "blocks"):
        base, _ = make(form, "bfloat16")
        with pytest.raises(ValueError, match=f"base: .* to Codes, not to {type(base).__name__}"):
            lowrank_residual_matmul(x, base, u, v, path="gpu")


def leaf_of(form, rank_first=False, outputs=O):
    base, _ = make(form, outputs=outputs)
    if form == "2:4":
        weight = NMSparse(base.values, packed.Packed(base.data, 2, -3, 4), 4, (K, O), 1, (0, 1))
    elif form == "blocks":
        weight = sx.BlockSparse(*base[:1], *base.structure, (K, O), 1, (0, 1))
    elif form == "dense":
        weight = base.matrix
    else:
        held = packed.Packed(base.data, 4, -1, K, -8) if base.form.bits == 4 else base.data
        weight = sx.Quantized(sx.Permuted(held, (-1, -2)), base.scale.T, None if base.zero is None else base.zero.T)
    _, u, v, _ = draw(1, "float32", outputs=outputs)
    return sx.Sum((sx.LowRank(u, v), weight) if rank_first else (weight, sx.LowRank(u, v)))


@pytest.mark.parametrize("form", FORMS)
def test_a_sum_with_a_low_rank_term_uses_it(form):
    """Asked for, the one product is what `explain` names, and its result that of the dense weight, `w @ x` too."""
    leaf, (x, *_) = leaf_of(form, rank_first=form == "int8"), draw(70, "float32")
    programs = [lambda w, x: x @ w] + [lambda w, x: (w.T @ x.T).T] * (form in ("dense", "int8", "int4 in groups"))
    for program in programs:
        with sx.kernels("pallas"):
            assert "rank 3 in one product [tpu]" in str(sx.explain(program, leaf, x))
            ours = sx.compressed(program)(leaf, x)
        want = x @ sx.dense(
            leaf
        )  # hundreds: float32 of one machine and another differs by a few units in the last place
        np.testing.assert_allclose(ours, want, rtol=0, atol=2e-6 * np.abs(want).max())


@pytest.mark.parametrize("form", ["int8", "int4 in groups", "dense"])
def test_a_sum_uses_it_on_a_gpu_where_it_is_asked_for(form, monkeypatch):
    monkeypatch.setattr(paths, "platform", lambda: "gpu")
    monkeypatch.setattr(paths, "missing_hopper", lambda: None)
    leaf, (x, *_) = leaf_of(form, outputs=64), draw(70, "bfloat16")
    explain = lambda x: str(sx.explain(lambda w, x: x @ w, leaf, x))  # noqa: E731
    assert "one product" not in explain(x)
    with sx.kernels("pallas"):
        assert ("rank 3 in one product [gpu]" in explain(x)) == (form != "dense")
        assert "one product" not in explain(x.astype("float32"))  # which no kernel of the codes takes


def test_terms_stay_apart_where_one_product_is_not_faster():
    use = verbs.Use.of_dot(leaf := leaf_of("int8"), jnp.zeros((4, K)), (((1,), (0,)), ((), ())))
    plan = verbs.plan(leaf, use)
    assert "one product" not in str(plan.kernel)
    assert "LowRank: two thin products" in str(plan.kernel)
