"""The product on GPU (Pallas, Mosaic GPU, Hopper): codes arrive at their width and become 16-bit floats in registers.

The matrix is the left operand, `y^T = w x^T`: the tensor cores of Hopper take their left operand from registers, so a
tile of codes is read from shared memory, converted and multiplied without being stored as floats. With several scales
a row, the sum of each tile is scaled before it is added. Integer products take both operands as they are.

It was lowered for CUDA and interpreted, never run on a GPU nor timed: `sx.kernels("pallas")` asks for it.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from spartax.kernels.quantized_matmul.form import Form
from spartax.kernels.quantized_matmul.reference import quantized_rows
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


def width_of(row_bytes: int, groups: int) -> int:
    """Bytes of codes along a row in a tile, inside one group: 64 or 32; 0 if neither divides."""
    return next((n for n in (64, 32) if row_bytes // groups % n == 0), 0)


def misfit(case: Any) -> str | None:
    """Why this kernel cannot take a case, or None."""
    form = case.form
    if form.levels != "integer" or form.bits not in (4, 8):
        return "the Mosaic GPU kernel takes integer codes of 4 or 8 bits"
    if form.length % (case.groups * form.cell) or not width_of(form.length // form.cell, case.groups):
        return f"the Mosaic GPU kernel needs groups of a multiple of {32 * form.cell} entries"
    if case.outputs % TUNING.outputs:
        return f"the Mosaic GPU kernel needs a multiple of {TUNING.outputs} outputs, not {case.outputs}"
    if case.int8:
        fits = form.bits == 8 and case.groups == 1
        return None if fits else "the Mosaic GPU kernel multiplies integers of 8 bits with one scale an output only"
    if jnp.dtype(case.dtype) not in (jnp.bfloat16, jnp.float16):
        return f"the Mosaic GPU kernel multiplies bfloat16 or float16, not {jnp.dtype(case.dtype).name}"
    return None


def matmul(
    x: Array, data: Array, scale: Array, zero: Array | None, form: Form, *, int8: bool = False, interpret: bool = False
) -> Array:
    """`x @ w.T`: x `[M, K]` -> float32 `[M, O]`; with `int8` the rows of x are rounded and sums are int32."""
    if int8:
        rows, row_scale = quantized_rows(x)
        sums = _tiled([rows], data, None, form, interpret)
        if zero is not None:
            sums = sums - jnp.sum(rows.astype(jnp.int32), 1, keepdims=True) * zero.astype(jnp.int32).T
        return sums.astype(jnp.float32) * scale.T * row_scale
    groups = scale.shape[1]
    columns = [x[:, i :: form.cell] for i in range(form.cell)]
    out = _tiled(columns, data, scale if groups > 1 else None, form, interpret)
    out = out if groups > 1 else out * scale.T
    if zero is None:
        return out
    totals = jnp.sum(x.astype(jnp.float32).reshape(x.shape[0], groups, -1), 2)
    return out - jnp.matmul(totals, (zero.astype(jnp.float32) * scale).T, precision=lax.Precision.HIGHEST)


def _spec(shape: tuple[int, int], kind: Any, where: Any) -> Any:
    swizzle = shape[1] * jnp.dtype(kind).itemsize
    transforms = (plgpu.TilingTransform((8, shape[1])), plgpu.SwizzleTransform(swizzle))
    return plgpu.BlockSpec(shape, where, transforms=transforms, delay_release=1)


def _tiled(columns: list[Array], data: Array, scale: Array | None, form: Form, interpret: bool) -> Array:
    """`[M, O]`, float32 or int32, of the columns of x that meet each plane of codes."""
    count, outputs, kind = columns[0].shape[0], data.shape[0], columns[0].dtype
    columns = [jnp.pad(c, ((0, -count % TUNING.rows), (0, 0))) for c in columns]
    out_kind = jnp.int32 if kind == jnp.int8 else jnp.float32
    grid = (outputs // TUNING.outputs, columns[0].shape[0] // TUNING.rows)
    groups = 1 if scale is None else scale.shape[1]
    out = plgpu.kernel(
        functools.partial(_multiply, form=form, groups=groups, planes=len(columns), kind=out_kind),
        out_type=jax.ShapeDtypeStruct((outputs, columns[0].shape[0]), out_kind),
        grid=grid,
        grid_names=("outputs", "rows"),
        scratch_types=[plgpu.SMEM((TUNING.outputs, TUNING.rows), out_kind)],
        compiler_params=plgpu.CompilerParams(lowering_semantics=plgpu.LoweringSemantics.Warpgroup),
        interpret=interpret,
    )(data, *columns, *([] if scale is None else [scale.T]))
    return out.T[:count]


def _multiply(data, *rest, form, groups, planes, kind) -> None:
    columns, scales, (out, staged) = rest[:planes], rest[planes:-2], rest[-2:]
    own, rows = lax.axis_index("outputs"), lax.axis_index("rows")
    pipeline = _pipeline(data, columns, scales, groups, (own, rows))
    staged[...] = (_scaled if scales else _plain)(pipeline, (data, *columns, *scales), form, kind)
    plgpu.commit_smem()
    height, width = staged.shape
    plgpu.copy_smem_to_gmem(staged, out.at[pl.ds(own * height, height), pl.ds(rows * width, width)])
    plgpu.wait_smem_to_gmem(0)


def _pipeline(data: Any, columns: tuple, scales: tuple, groups: int, place: tuple[Any, Any]) -> Any:
    """Steps along the inputs, each with a tile of codes, one of every plane of x, and the scales of its group."""
    (own, rows), width, group = place, width_of(data.shape[1], groups), data.shape[1] // groups
    specs = [_spec((TUNING.outputs, width), data.dtype, lambda k: (own, k))]
    specs += [_spec((TUNING.rows, width), c.dtype, lambda k: (rows, k)) for c in columns]
    specs += [plgpu.BlockSpec((1, TUNING.outputs), lambda k: (k * width // group, own)) for _ in scales]
    return functools.partial(
        plgpu.emit_pipeline, grid=(data.shape[1] // width,), in_specs=specs, max_concurrent_steps=TUNING.stages
    )


def _add(total: Any, codes: Any, met: Sequence[Any], form: Form) -> None:
    for left, right in zip(_values(codes, form, met[0].dtype), met):
        plgpu.wgmma(total, left, right.transpose((1, 0)))


def _plain(pipeline: Any, arrays: tuple, form: Form, kind: Any) -> Array:
    """The sum over all steps, kept where the tensor cores add."""

    def whole(total: Any) -> Array:
        def step(_, codes: Any, *met: Any) -> None:
            _add(total, codes, met, form)
            plgpu.wgmma_wait(0)

        pipeline(step)(*arrays)
        return total[...]

    return pl.run_scoped(whole, plgpu.ACC((TUNING.outputs, TUNING.rows), kind))


def _scaled(pipeline: Any, arrays: tuple, form: Form, kind: Any) -> Array:
    """The sum over all steps of each step's own sum times its scales."""
    shape = (TUNING.outputs, TUNING.rows)

    def step(_, codes: Any, *rest: Any) -> Array:
        *met, scale, carry = rest

        def part(total: Any) -> Array:
            _add(total, codes, met, form)
            return total[...]

        return carry + pl.run_scoped(part, plgpu.ACC(shape, kind)) * lax.broadcast_in_dim(scale[0], shape, [0])

    return pipeline(step, init_carry=jnp.zeros(shape, kind))(*arrays)


def _values(codes: Any, form: Form, kind: Any) -> list[Any]:
    """The planes of a tile of codes as left operands: 16-bit floats in registers, or the int8 tile where it lies."""
    if kind == jnp.int8:
        return [codes]
    if form.bits == 8:
        return [codes[...].astype(kind)]
    data = codes[...]  # there are no shifts of bytes: sixteen times the upper code is exact in 16 bits
    lower, upper = (data & jnp.uint8(15)).astype(kind), (data & jnp.uint8(240)).astype(kind)
    return [lower + form.low, upper * 0.0625 + form.low]
