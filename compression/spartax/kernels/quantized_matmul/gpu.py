"""The product on GPU (Pallas, Mosaic GPU, Hopper): codes arrive at their width and become 16-bit floats in registers.

The matrix is the left operand, `y^T = w x^T`: the tensor cores of Hopper take their left operand from registers, so a
tile of codes is read from shared memory, converted and multiplied without being stored as floats. With several scales
a row, the sum of each tile is scaled before it is added; with one, the whole sum is. A low-rank term is added behind
that by the same loop, over two thin matrices. Integer products take both operands as they are.

It was lowered for CUDA and interpreted, never run on a GPU nor timed: `sx.kernels("pallas")` asks for it.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from spartax.kernels.quantized_matmul.form import Form
from spartax.kernels.quantized_matmul.reference import code_sums, quantized_rows
from spartax.records import Array


class Tuning(NamedTuple):
    """Sizes of a tile.

    Attributes:
      rows: of x.
      outputs: rows of the matrix; the tensor cores take 64.
      stages: copies under way at a time.
    """

    rows: int = 64
    outputs: int = 64
    stages: int = 4


TUNING = Tuning()
NARROW = 32  # entries along the inputs in the smallest tile


def width_of(row_bytes: int, groups: int) -> int:
    """Bytes of codes along a row in a tile, inside one group: 64 or 32; 0 if neither divides."""
    return next((n for n in (2 * NARROW, NARROW) if row_bytes // groups % n == 0), 0)


def misfit(case: Any) -> str | None:
    """Why this kernel cannot take a case, or None."""
    form = case.form
    if form.levels != "integer" or form.bits not in (4, 8):
        return "the Mosaic GPU kernel takes integer codes of 4 or 8 bits"
    if form.length % (case.groups * form.cell) or not width_of(form.length // form.cell, case.groups):
        return f"the Mosaic GPU kernel needs groups of a multiple of {NARROW * form.cell} entries"
    if case.outputs % TUNING.outputs:
        return f"the Mosaic GPU kernel needs a multiple of {TUNING.outputs} outputs, not {case.outputs}"
    if case.int8:
        fits = form.bits == 8 and case.groups == 1
        return None if fits else "the Mosaic GPU kernel multiplies integers of 8 bits with one scale an output only"
    if jnp.dtype(case.dtype) not in (jnp.bfloat16, jnp.float16):
        return f"the Mosaic GPU kernel multiplies bfloat16 or float16, not {jnp.dtype(case.dtype).name}"
    return None


class Factors(NamedTuple):
    """What one loop multiplies.

    Attributes:
      left: `[O, n]`, codes or floats.
      right: matrices `[M, n]`.
      operands: a tile of `left` -> the left operands of the tensor cores, one for each matrix on the right.
    """

    left: Any
    right: tuple
    operands: Callable[[Any], list[Any]]


def matmul(
    x: Array,
    data: Array,
    scale: Array,
    zero: Array | None,
    form: Form,
    *,
    int8: bool = False,
    residual: tuple[Array, Array] | None = None,
    interpret: bool = False,
) -> Array:
    """`x @ w.T`: x `[M, K]` -> float32 `[M, O]`; with `int8` the rows of x are rounded and sums are int32.

    With `residual = (t [M, r], v [r, O])`, in the dtype of x, every tile of a float sum gets its part of `t @ v`.
    """
    if int8:
        rows, row_scale = quantized_rows(x)
        products = lambda rows, data, form: _tiled([rows], data, form, interpret)  # noqa: E731
        return code_sums(products, rows, data, zero, form) * scale.T * row_scale
    columns = [x[:, i :: form.cell] for i in range(form.cell)]
    out = _tiled(columns, data, form, interpret, scale, residual)
    if zero is None:
        return out
    totals = jnp.sum(x.astype(jnp.float32).reshape(x.shape[0], scale.shape[1], -1), 2)
    return out - jnp.matmul(totals, (zero.astype(jnp.float32) * scale).T, precision=lax.Precision.HIGHEST)


def _tiled(
    columns: list[Array],
    data: Array,
    form: Form,
    interpret: bool,
    scale: Array | None = None,
    residual: tuple[Array, Array] | None = None,
) -> Array:
    """`[M, O]`, float32 or int32, of the columns of x that meet each plane of codes."""
    count, outputs, kind = columns[0].shape[0], data.shape[0], columns[0].dtype
    columns = [_whole(c, TUNING.rows) for c in columns]
    scales = [] if scale is None else [scale.T]
    thin = [] if residual is None else _thin(*residual)
    out_kind = jnp.int32 if kind == jnp.int8 else jnp.float32
    out = plgpu.kernel(
        functools.partial(_multiply, form=form, planes=len(columns), scaled=len(scales), kind=out_kind),
        out_type=jax.ShapeDtypeStruct((outputs, columns[0].shape[0]), out_kind),
        grid=(outputs // TUNING.outputs, columns[0].shape[0] // TUNING.rows),
        grid_names=("outputs", "rows"),
        scratch_types=[plgpu.SMEM((TUNING.outputs, TUNING.rows), out_kind)],
        compiler_params=plgpu.CompilerParams(lowering_semantics=plgpu.LoweringSemantics.Warpgroup),
        interpret=interpret,
    )(data, *columns, *scales, *thin)
    return out.T[:count]


def _thin(t: Array, v: Array) -> list[Array]:
    """`v.T` and t, the factors of the low-rank term, their rank filled up to whole tiles."""
    return [_whole(v.T, 1, NARROW), _whole(t, TUNING.rows, NARROW)]


def _whole(x: Array, rows: int, columns: int = 1) -> Array:
    """The same with zeros below and behind, up to whole tiles."""
    return jnp.pad(x, ((0, -x.shape[0] % rows), (0, -x.shape[1] % columns)))


def _multiply(data, *rest, form, planes, scaled, kind) -> None:
    columns, scales, (*thin, out, staged) = rest[:planes], rest[planes : planes + scaled], rest[planes + scaled :]
    place = own, rows = lax.axis_index("outputs"), lax.axis_index("rows")
    codes = Factors(data, columns, functools.partial(_values, form=form, kind=columns[0].dtype))
    total = _scaled(codes, scales[0], place) if scales else _plain(codes, place, kind)
    if thin:
        total = total + _plain(Factors(thin[0], tuple(thin[1:]), lambda tile: [tile]), place, kind)
    staged[...] = total
    plgpu.commit_smem()
    height, width = staged.shape
    plgpu.copy_smem_to_gmem(staged, out.at[pl.ds(own * height, height), pl.ds(rows * width, width)])
    plgpu.wait_smem_to_gmem(0)


def _spec(shape: tuple[int, int], kind: Any, where: Any) -> Any:
    swizzle = shape[1] * jnp.dtype(kind).itemsize
    transforms = (plgpu.TilingTransform((8, shape[1])), plgpu.SwizzleTransform(swizzle))
    return plgpu.BlockSpec(shape, where, transforms=transforms, delay_release=1)


def _scales_spec(group: Any, own: Any) -> Any:
    """Of the scales of a tile of outputs; `group(step)` is the group of a step."""
    return plgpu.BlockSpec((1, TUNING.outputs), lambda k: (group(k), own))


def _pipeline(factors: Factors, scales: Sequence[Any], place: tuple[Any, Any]) -> Any:
    """Steps along the inputs, each with a tile of every factor and the scales of its group."""
    (left, right, _), (own, rows) = factors, place
    groups = scales[0].shape[0] if scales else 1
    width, group = width_of(left.shape[1], groups), left.shape[1] // groups
    specs = [_spec((TUNING.outputs, width), left.dtype, lambda k: (own, k))]
    specs += [_spec((TUNING.rows, width), r.dtype, lambda k: (rows, k)) for r in right]
    specs += [_scales_spec(lambda k: k * width // group, own) for _ in scales]
    return functools.partial(
        plgpu.emit_pipeline, grid=(left.shape[1] // width,), in_specs=specs, max_concurrent_steps=TUNING.stages
    )


def _add(total: Any, tile: Any, met: Sequence[Any], factors: Factors) -> None:
    for left, right in zip(factors.operands(tile), met):
        plgpu.wgmma(total, left, right.transpose((1, 0)))


def _plain(factors: Factors, place: tuple[Any, Any], kind: Any) -> Array:
    """The sum over all steps, kept where the tensor cores add."""

    def whole(total: Any) -> Array:
        def step(_, tile: Any, *met: Any) -> None:
            _add(total, tile, met, factors)
            plgpu.wgmma_wait(0)

        _pipeline(factors, (), place)(step)(factors.left, *factors.right)
        return total[...]

    return pl.run_scoped(whole, plgpu.ACC((TUNING.outputs, TUNING.rows), kind))


def _scaled(factors: Factors, scale: Any, place: tuple[Any, Any]) -> Array:
    """The sum with its scales, `[groups, O]`: of one group at the end, of several step by step."""
    if scale.shape[0] > 1:
        return _in_groups(factors, scale, place)
    once = plgpu.emit_pipeline(
        lambda _, scale, total: total * _spread(scale),
        grid=(1,),
        in_specs=[_scales_spec(lambda k: k, place[0])],
        init_carry=_plain(factors, place, jnp.float32),
    )
    return once(scale)


def _in_groups(factors: Factors, scale: Any, place: tuple[Any, Any]) -> Array:
    """The sum over all steps of each step's own sum times its scales."""
    shape = (TUNING.outputs, TUNING.rows)

    def step(_, tile: Any, *rest: Any) -> Array:
        *met, scale, carry = rest

        def part(total: Any) -> Array:
            _add(total, tile, met, factors)
            return total[...]

        return carry + pl.run_scoped(part, plgpu.ACC(shape, jnp.float32)) * _spread(scale)

    pipeline = _pipeline(factors, (scale,), place)
    return pipeline(step, init_carry=jnp.zeros(shape, jnp.float32))(factors.left, *factors.right, scale)


def _spread(scale: Any) -> Array:
    """The scales of a tile, each along its row."""
    return lax.broadcast_in_dim(scale[0], (TUNING.outputs, TUNING.rows), [0])


def _values(codes: Any, form: Form, kind: Any) -> list[Any]:
    """The planes of a tile of codes as left operands: 16-bit floats in registers, or the int8 tile where it lies."""
    if kind == jnp.int8:
        return [codes]
    if form.bits == 8:
        return [codes[...].astype(kind)]
    data = codes[...]  # there are no shifts of bytes: sixteen times the upper code is exact in 16 bits
    lower, upper = (data & jnp.uint8(15)).astype(kind), (data & jnp.uint8(240)).astype(kind)
    return [lower + form.low, upper * 0.0625 + form.low]
