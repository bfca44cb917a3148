"""One suite for all paths of the quantized product: against the plain one, forward and both gradients.

Tolerances: a sum of K products in float32 is off by about sqrt(K) roundings of the largest partial sum, so results are
compared to 4 sqrt(K) eps of the largest result.
"""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

import spartax as sx
from spartax.kernels import bits as bits_kernel
from spartax.kernels import paths
from spartax.kernels.quantized_matmul import Case, Form, choose, gpu, quantized_matmul, reference, tpu, xla

pytestmark = pytest.mark.core

# rows, outputs, inputs, bits, groups, zero points
CASES = {
    "one row, nothing divides": (1, 5, 7, 8, 1, False),
    "zero points": (5, 300, 260, 8, 1, True),
    "int8 groups of 128": (6, 40, 512, 8, 4, True),
    "int4, odd inputs": (2, 33, 37, 4, 1, True),
    "int4 groups of 256": (6, 130, 512, 4, 2, True),
    "int4 groups of 8": (6, 17, 40, 4, 5, False),
    "int2": (7, 20, 60, 2, 1, False),
    "int3, groups across cells": (3, 33, 40, 3, 10, True),
    "int5, a last cell half full": (3, 9, 21, 5, 1, False),
}
run = jax.jit(quantized_matmul, static_argnames=("form", "path", "int8"))


def draw(rows, outputs, inputs, bits, groups, zero, dtype=jnp.float32, seed=0):
    rng, low = np.random.default_rng(seed), -(2 ** (bits - 1))
    codes = rng.integers(low, -low, (outputs, inputs))
    data = jnp.asarray(codes, jnp.int8)
    if bits < 8:
        data = bits_kernel.pack_bits(jnp.asarray(codes - low, jnp.int16), bits, -1)
    scale = jnp.asarray(rng.uniform(0.5, 1.5, (outputs, groups)), jnp.float32)
    zeros = jnp.asarray(rng.integers(low, -low, (outputs, groups)), jnp.int8) if zero else None
    x = jnp.asarray(rng.standard_normal((rows, inputs)), dtype)
    return codes, (x, data, scale, zeros, Form(inputs, bits, low if bits < 8 else 0))


def in_numpy(codes, x, scale, zero):
    spread = lambda v: np.repeat(np.asarray(v, np.float64), codes.shape[1] // v.shape[1], axis=1)  # noqa: E731
    weight = (codes - (0 if zero is None else spread(zero))) * spread(scale)
    return np.asarray(x, np.float64) @ weight.T


def close(ours, want, length):
    limit = 4 * np.sqrt(length) * 2.0**-24 * np.abs(want).max()
    np.testing.assert_allclose(np.asarray(ours, np.float64), want, rtol=0, atol=max(limit, 1e-30))


def offered(args, int8=False):
    """The paths that take a case here."""
    x, _, scale, zero, form = args
    case = Case(x.shape[0], scale.shape[0], scale.shape[1], zero is not None, form, x.dtype, int8)
    return ["reference", "xla", *(["tpu"] if tpu.misfit(case) is None else [])]


@pytest.mark.parametrize("name", CASES)
def test_forward_and_gradients(name):
    codes, args = draw(*CASES[name])
    x, _, scale, zero, form = args
    want = in_numpy(codes, x, scale, zero)
    pull = jnp.asarray(np.random.default_rng(1).standard_normal(want.shape), jnp.float32)
    plain = None
    for path in offered(args):
        fn = functools.partial(run, data=args[1], zero=zero, form=form, path=path)
        y, back = jax.vjp(lambda x, s, fn=fn: fn(x, scale=s), x, scale)
        assert y.dtype == jnp.float32
        close(y, want, form.length)
        grads = back(pull)
        plain = plain or [np.asarray(g, np.float64) for g in grads]
        close(grads[0], plain[0], scale.shape[0] + form.length)
        close(grads[1], plain[1], scale.shape[0] + form.length)
    exact = np.asarray(pull, np.float64) @ np.asarray(reference.weight(*args[1:4], form), np.float64)
    close(plain[0], exact, scale.shape[0])


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("name", ["zero points", "int4 groups of 256"])
def test_half_precision_activations(name, dtype):
    """Activations and codes are exact in 16 bits, their products in float32, and scales are never rounded."""
    codes, args = draw(*CASES[name], dtype=dtype)
    x, _, scale, zero, form = args
    want = in_numpy(codes, x, scale, zero)
    for path in offered(args):
        close(run(*args[:4], form=form, path=path), want, form.length)
        gradient = jax.grad(lambda x, path=path: jnp.sum(run(x, *args[1:4], form=form, path=path)))(x)
        assert gradient.dtype == dtype


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c[4] == 1])
def test_int8_products_are_exact(name):
    codes, args = draw(*CASES[name])
    x, _, scale, zero, form = args
    step = np.abs(np.asarray(x)).max(1, keepdims=True) / np.float32(127)
    rows = np.rint(np.asarray(x) / step).astype(np.int64)
    sums = rows @ (codes - (0 if zero is None else np.asarray(zero, np.int64))).T
    want = (sums.astype(np.float32) * np.asarray(scale).T) * step
    for path in offered(args, int8=True):
        np.testing.assert_allclose(run(*args[:4], form=form, path=path, int8=True), want, rtol=3e-7)
    unit = {"scale": jnp.ones_like(scale), "zero": zero, "form": form, "int8": True}
    whole = jnp.asarray(rows, jnp.float32).at[:, 0].set(127)  # integers up to 127 have the scale 1: sums come out bare
    rows[:, 0] = 127
    sums = rows @ (codes - (0 if zero is None else np.asarray(zero, np.int64))).T
    for path in offered(args, int8=True):
        np.testing.assert_array_equal(np.asarray(run(whole, args[1], path=path, **unit), np.int64), sums)


@pytest.mark.parametrize("name", ["zero points", "int5, a last cell half full"])
def test_rows_in_pieces_give_the_same_sums(name, monkeypatch):
    """Cut in three or so, at any width: integers, so nothing is rounded."""
    codes, args = draw(*CASES[name])
    zero, form = args[3:]
    rows, unit = (
        jnp.asarray(np.random.default_rng(1).integers(-127, 128, args[0].shape), jnp.int8),
        jnp.ones_like(args[2]),
    )
    want = np.asarray(rows, np.int64) @ (codes - (0 if zero is None else np.asarray(zero, np.int64))).T
    monkeypatch.setattr(reference, "exact_length", lambda zero: 8 * (1 + form.length // 24))
    for path in ("reference", "xla"):
        got = jax.jit(lambda path=path: quantized_matmul(rows, args[1], unit, zero, form, path=path, int8=True))()
        np.testing.assert_array_equal(np.asarray(got, np.int64), want)


@pytest.mark.parametrize(("length", "zero"), [(150528, None), (100000, -128)])
def test_sums_that_int32_does_not_hold(length, zero):
    """Codes of 127, rows of ones: rounded rows have the code 127, those of floats a first digit of 127.

    Half of the bits may go in a sum of floats of one sign; a sum that wraps around is off by more than itself.
    """
    codes = jnp.full((3, length), 127, jnp.int8)
    zeros = None if zero is None else jnp.full((3, 1), zero, jnp.int8)
    want = length * (127 - (zero or 0))
    for path, int8 in (("reference", True), ("xla", True), ("tpu", True), ("xla", False)):
        got = run(jnp.ones((1, length)), codes, jnp.ones((3, 1)), zeros, Form(length), path=path, int8=int8)
        np.testing.assert_allclose(got, np.full((1, 3), want), rtol=2.0**-22 if int8 else 2.0**-12)


@pytest.mark.parametrize("zero", [False, True])
def test_a_few_rows_with_an_outlier_or_a_hole(zero):
    """As exact in every result as a sum of float32 products, where digits below the largest entry would not be."""
    _, args = draw(4, 33, 260, 8, 1, zero)
    data, scale, zeros, form = args[1].at[:, 7].set(0), *args[2:]
    x = args[0].at[0, 7].set(1e6).at[1].multiply(1e-37).at[2, 3].set(0)
    got = np.asarray(run(x, data, scale, zeros, form=form), np.float64)
    x64, offset = np.asarray(x, np.float64), 0 if zeros is None else np.asarray(zeros, np.float64)
    whole, step = np.asarray(data, np.float64), np.asarray(scale, np.float64)
    size = ((np.abs(whole) + np.abs(offset)) * step).T  # zero points are taken off afterwards
    limit = 2.0**-24 * (260 + 4) * np.abs(x64) @ size + 2.0**-126 * size.sum(0)  # subnormal entries count as zero
    assert (np.abs(got - x64 @ ((whole - offset) * step).T) <= limit).all()
    assert (np.abs(got[1]) > 1e-36).any()


@pytest.mark.parametrize("bits", [8, 4])
def test_digits_of_a_few_even_rows(bits):
    """24 bits below the largest entry of a row."""
    codes, args = draw(4, 33, 260, bits, 1, True)
    assert bool(xla._even(args[0]))
    want, weight = in_numpy(codes, *args[:1], *args[2:4]), np.asarray(reference.weight(*args[1:]), np.float64)
    limit = np.abs(np.asarray(args[0])).max(1)[:, None] * np.abs(weight).sum(1) + 4 * np.abs(want)
    got = np.asarray(run(*args[:4], form=args[4]), np.float64)
    assert (np.abs(got - want) <= 2.0**-23 * limit).all()


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("rows", [4, 5])
def test_numbers_that_are_not_finite_stay_so(rows, int8):
    """In their rows and nowhere else (in digits, codes and floats)."""
    _, args = draw(rows, 5, 21, 8, 1, False)
    x = args[0].at[0, 3].set(jnp.nan).at[2, 4].set(-jnp.inf)
    for path in ("reference", "xla", "tpu"):
        got = run(x, *args[1:4], form=args[4], path=path, int8=int8)
        np.testing.assert_array_equal(np.isfinite(got).all(1), [False, True, False, *[True] * (rows - 3)])
        assert not np.isfinite(got[0]).any()


def test_int8_in_groups_and_its_straight_through_gradient():
    _, args = draw(*CASES["int8 groups of 128"])
    x, _, scale, _, form = args
    fn = functools.partial(run, form=form, int8=True)
    want = fn(*args[:4], path="reference")
    close(fn(*args[:4], path="xla"), np.asarray(want), form.length)
    assert float(jnp.abs(want - run(*args[:4], form=form, path="reference")).max()) > 1e-3  # x was rounded
    grads = [
        jax.grad(lambda x, s, p=p, i=i: jnp.sum(run(x, args[1], s, args[3], form, path=p, int8=i)), (0, 1))(x, scale)
        for p, i in (("reference", False), ("reference", True), ("xla", True))
    ]
    for other in grads[1:]:
        jax.tree.map(lambda a, b: close(a, np.asarray(b), form.length + 40), other, grads[0])


def test_a_group_longer_than_int32_holds():
    codes, scale = jnp.full((3, 2 * 150528), 127, jnp.int8), jnp.ones((3, 2))
    for path in ("reference", "xla"):
        got = run(jnp.ones((1, 2 * 150528)), codes, scale, None, Form(2 * 150528), path=path, int8=True)
        np.testing.assert_allclose(got, np.full((1, 3), 2 * 150528 * 127), rtol=2.0**-12)


def test_forward_mode():
    _, args = draw(*CASES["zero points"])
    x, form = args[0], args[4]
    tangents = [
        jax.jvp(lambda x, p=p: run(x, *args[1:4], form=form, path=p), (x,), (jnp.ones_like(x),))[1]
        for p in ("reference", "xla", "tpu")
    ]
    close(tangents[1], np.asarray(tangents[0]), form.length)
    close(tangents[2], np.asarray(tangents[0]), form.length)


@hypothesis.settings(max_examples=12, deadline=None, derandomize=True)
@hypothesis.given(st.integers(2, 8), st.integers(1, 4), st.integers(1, 9), st.integers(1, 12), st.booleans())
def test_any_bits_and_groups(bits, groups, width, outputs, zero):
    codes, args = draw(3, outputs, groups * width, bits, groups, zero)
    x, _, scale, zeros, form = args
    with jax.disable_jit():
        close(quantized_matmul(*args, path="xla"), in_numpy(codes, x, scale, zeros), form.length + 4)
    np.testing.assert_array_equal(reference.codes(args[1], form), codes)


def test_blocks_of_outputs_with_a_remainder(monkeypatch):
    """31 outputs in blocks of 8: three whole ones and a rest."""
    codes, args = draw(9, 31, 64, 4, 2, True)
    monkeypatch.setattr(xla, "tuning", lambda rows: xla.Tuning(8 * 64, True))
    close(xla.matmul(*args), in_numpy(codes, args[0], *args[2:4]), 64)


def test_the_whole_matrix_is_never_made():
    form = Form(4096, 4, -8)
    like = jax.ShapeDtypeStruct
    args = like((8, 4096), jnp.float32), like((4096, 2048), jnp.uint8), like((4096, 64), jnp.float32)
    fn = jax.jit(lambda x, d, s: quantized_matmul(x, d, s, None, form))
    memory = fn.lower(*args).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 4096 * 4096  # a quarter of the float weights


def test_tpu_kernels_lower_without_a_tpu():
    for name in ("zero points", "int8 groups of 128", "int4 groups of 256", "int2"):
        for dtype in (jnp.float32, jnp.bfloat16):
            _, args = draw(*CASES[name], dtype=dtype)
            for int8 in (False, True) if CASES[name][4] == 1 else (False,):
                fn = jax.jit(functools.partial(tpu.matmul, form=args[4], int8=int8))
                text = fn.trace(*args[:4]).lower(lowering_platforms=("tpu",)).as_text()
                assert "tpu_custom_call" in text


# rows, outputs, inputs, bits, groups, zero points; dtype of x, and whether it is rounded
ON_GPU = {
    "int8, ragged rows": ((70, 128, 192, 8, 1, True), "bfloat16", False),
    "int8 in groups": ((5, 64, 256, 8, 4, True), "float16", False),
    "int4": ((3, 64, 256, 4, 1, False), "bfloat16", False),
    "int4 in groups of 64": ((5, 128, 256, 4, 4, True), "bfloat16", False),
    "int8 x int8": ((70, 64, 128, 8, 1, True), "float32", True),
}


def gpu_case(name):
    (rows, outputs, inputs, bits, groups, zero), dtype, int8 = ON_GPU[name]
    codes, args = draw(rows, outputs, inputs, bits, groups, zero, jnp.dtype(dtype))
    assert gpu.misfit(Case(rows, outputs, groups, zero, args[4], jnp.dtype(dtype), int8)) is None
    return codes, args, int8


def close_on_gpu(ours, codes, args, int8):
    x, _, scale, zero, form = args
    if int8:
        np.testing.assert_allclose(ours, reference.int8_matmul(*args), rtol=1e-6)
    else:
        close(ours, in_numpy(codes, x, scale, zero), form.length)  # 16-bit products are exact, sums are float32


def staged_product(total, left, right, product=plgpu.wgmma):
    """The same with a left operand of shared memory: the interpreter has none in registers."""
    if not isinstance(left, jax.Array):
        return product(total, left, right)

    def staged(copy):
        copy[...] = left
        product(total, copy, right)
        plgpu.wgmma_wait(0)

    return pl.run_scoped(staged, plgpu.SMEM(left.shape, left.dtype))


@pytest.mark.parametrize("name", ON_GPU)
def test_gpu_kernel_lowers_without_a_gpu(name):
    _, args, int8 = gpu_case(name)
    fn = jax.jit(functools.partial(gpu.matmul, form=args[4], int8=int8))
    assert "mosaic" in fn.trace(*args[:4]).lower(lowering_platforms=("cuda",)).as_text()


@pytest.mark.skipif(not hasattr(plgpu, "InterpretGPUParams"), reason="this JAX does not interpret Mosaic GPU kernels")
@pytest.mark.parametrize("name", ON_GPU)
def test_gpu_kernel_interpreted(name, monkeypatch):
    codes, args, int8 = gpu_case(name)
    monkeypatch.setattr(plgpu, "wgmma", staged_product)
    close_on_gpu(gpu.matmul(*args, int8=int8, interpret=plgpu.InterpretGPUParams()), codes, args, int8)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ON_GPU)
def test_gpu_kernel_on_a_gpu(name):
    if paths.missing_hopper():
        pytest.skip(paths.missing_hopper())
    codes, args, int8 = gpu_case(name)
    close_on_gpu(run(*args, path="gpu", int8=int8), codes, args, int8)


def test_int8_products_refuse_numbers_that_are_not_integers():
    _, (x, data, scale, zero, form) = draw(*CASES["zero points"])
    with pytest.raises(ValueError, match="integer zero points, not float32"):
        quantized_matmul(x, data, scale, zero.astype(jnp.float32), form, int8=True)
    with pytest.raises(ValueError, match="integer codes; nf4"):
        quantized_matmul(x, data, scale, None, form._replace(levels="nf4"), int8=True)


def test_what_the_pallas_kernels_decline():
    case = Case(8, 256, 1, False, Form(512), jnp.dtype(jnp.float32), False)
    assert tpu.misfit(case) is None
    assert "3 bits" in tpu.misfit(case._replace(form=Form(512, 3, -4)))
    assert "multiple of 128" in tpu.misfit(case._replace(groups=8))
    assert "e4m3" in tpu.misfit(case._replace(form=Form(512, levels="e4m3")))
    assert "one scale an output" in tpu.misfit(case._replace(groups=4, int8=True))
    half = case._replace(dtype=jnp.dtype(jnp.bfloat16))
    assert gpu.misfit(half) is None
    assert "float32" in gpu.misfit(case)
    assert "multiple of 64 outputs" in gpu.misfit(half._replace(outputs=100))
    assert "multiple of 64 entries" in gpu.misfit(half._replace(form=Form(512, 4, -8), groups=16))
    with sx.kernels("pallas"):
        if jax.default_backend() == "cpu":
            assert choose(case) == paths.Choice("tpu", "pallas asked for, interpreted")
        assert choose(case._replace(form=Form(512, 3, -4))).path == "xla"
