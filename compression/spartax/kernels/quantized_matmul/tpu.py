"""The TPU kernel (Pallas, Mosaic): codes travel to the core at their width and become floats beside the matrix unit.

Not measured: no TPU was at hand. It is tested in interpret mode, and lowered to Mosaic without a TPU.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from spartax.kernels import bits as bits_kernel
from spartax.kernels import levels as number_formats
from spartax.kernels.quantized_matmul.form import Form
from spartax.kernels.quantized_matmul.reference import code_sums, quantized_rows
from spartax.kernels.residual import first_sum, padded_rows
from spartax.records import Array

LANES = 128


class Tuning(NamedTuple):
    """Sizes of a tile.

    Attributes:
      rows: of x.
      outputs: rows of the matrix.
      bytes: of codes along a row of the matrix.
      groups: scales along them.
    """

    rows: int
    outputs: int
    bytes: int
    groups: int


def tuning(rows: int, outputs: int, row_bytes: int, groups: int) -> Tuning:
    """Tiles of about 256 kB of codes; with groups, whole ones."""
    outputs, rows = min(256, _up(outputs, LANES)), min(256, _up(rows, 32))
    if groups == 1:
        return Tuning(rows, outputs, min(1024, _up(row_bytes, LANES)), 1)
    width = row_bytes // groups
    most = max(1, 1024 // width)
    few = next(n for n in range(min(most, groups), 0, -1) if groups % n == 0)
    return Tuning(rows, outputs, few * width, few)


def _up(n: int, to: int) -> int:
    return -(-n // to) * to


def misfit(case: Any) -> str | None:
    """Why this kernel cannot take a case, or None."""
    form = case.form
    if form.bits not in (2, 4, 8):
        return f"the Pallas kernel has no codes of {form.bits} bits"
    if form.levels in number_formats.FLOATS:
        return f"the Pallas kernel has no {form.levels} codes"
    width = form.length // case.groups
    if case.groups > 1 and width % (LANES * form.cell):
        return f"the Pallas kernel needs groups of a multiple of {LANES * form.cell} entries, not {width}"
    return (
        "the Pallas kernel multiplies integers with one scale an output only" if case.int8 and case.groups > 1 else None
    )


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

    With `residual = (t [M, r], v [r, O])` every tile of a float sum starts as its part of `t @ v`.
    """
    if not int8:
        x = x if x.dtype == jnp.bfloat16 else x.astype(jnp.float32)
        return _tiled(x, data, scale, zero, form, interpret, residual)
    rows, row_scale = quantized_rows(x)
    products = lambda rows, data, form: _tiled(rows, data, scale, None, form, interpret)  # noqa: E731
    return code_sums(products, rows, data, zero, form) * scale.T * row_scale


def _tiled(
    x: Array,
    data: Array,
    scale: Array,
    zero: Array | None,
    form: Form,
    interpret: bool,
    residual: tuple[Array, Array] | None = None,
) -> Array:
    (count, _), (outputs, width), groups = x.shape, data.shape, scale.shape[1]
    tile = tuning(count, outputs, width, groups)
    steps = pl.cdiv(width, tile.bytes)
    planes = _planes(x, form, _up(count, tile.rows), steps * tile.bytes)
    scales = [_by_tile(s, tile.groups) for s in (scale, zero) if s is not None]
    thin = [] if residual is None else [(padded_rows(residual[0], planes.shape[1]), residual[1])]
    at_scale = (lambda i, j, k: (k, 0, j)) if groups > 1 else (lambda i, j, k: (0, 0, j))
    kind = jnp.int32 if x.dtype == jnp.int8 else jnp.float32
    out = pl.pallas_call(
        functools.partial(_kernel, form=form, groups=tile.groups, steps=steps, zero=len(scales) > 1),
        out_shape=jax.ShapeDtypeStruct((planes.shape[1], outputs), kind),
        grid=(planes.shape[1] // tile.rows, pl.cdiv(outputs, tile.outputs), steps),
        in_specs=[
            pl.BlockSpec((form.cell, tile.rows, tile.bytes), lambda i, j, k: (0, i, k)),
            pl.BlockSpec((tile.outputs, tile.bytes), lambda i, j, k: (j, k)),
            *[pl.BlockSpec((1, tile.groups, tile.outputs), at_scale) for _ in scales],
            *[pl.BlockSpec((tile.rows, v.shape[0]), lambda i, j, k: (i, 0)) for _, v in thin],
            *[pl.BlockSpec((v.shape[0], tile.outputs), lambda i, j, k: (0, j)) for _, v in thin],
        ],
        out_specs=pl.BlockSpec((tile.rows, tile.outputs), lambda i, j, k: (i, j)),
        scratch_shapes=[pltpu.VMEM((tile.rows, tile.outputs), kind)],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel", "arbitrary")),
        interpret=interpret,
    )(planes, data, *scales, *[v for pair in thin for v in pair])
    return out[:count]


def _planes(x: Array, form: Form, rows: int, width: int) -> Array:
    """Rows `[M, K]` as `[cell, rows, width]`: the columns that meet each place of the bytes, zero where there are none.

    Past the end of a row the codes of a tile are whatever lies there; zeros here make that harmless.
    """
    x = jnp.pad(x, ((0, rows - x.shape[0]), (0, width * form.cell - x.shape[1])))
    return jnp.moveaxis(x.reshape(rows, width, form.cell), -1, 0)


def _by_tile(scale: Array, groups: int) -> Array:
    """`[O, G] -> [G / groups, groups, O]`."""
    return scale.astype(jnp.float32).T.reshape(-1, groups, scale.shape[0])


def _kernel(x: Any, data: Any, scale: Any, *rest: Any, form: Form, groups: int, steps: int, zero: bool) -> None:
    *extra, out, total = rest
    offset, thin = (extra[0] if zero else None), extra[zero:]
    kind = x.dtype

    @pl.when(pl.program_id(2) == 0)
    def _() -> None:
        total[...] = first_sum(thin, total, _precision(kind))

    codes = [_values(c, form, kind) for c in _codes(data[...], form)]
    width = data.shape[1] // groups
    for g in range(groups):
        cut = slice(g * width, (g + 1) * width)
        sums = sum(_product(x[i, :, cut], c[:, cut], total.dtype) for i, c in enumerate(codes))
        if kind == jnp.int8:
            total[...] += sums
            continue
        if offset is not None:
            row_sums = sum(jnp.sum(x[i, :, cut].astype(jnp.float32), 1, keepdims=True) for i in range(form.cell))
            sums = sums - row_sums * offset[0, g : g + 1, :]
        total[...] += sums * scale[0, g : g + 1, :]

    @pl.when(pl.program_id(2) == steps - 1)
    def _() -> None:
        out[...] = total[...]


def _codes(data: Array, form: Form) -> list[Array]:
    if form.bits == 8:
        return [data]
    return bits_kernel.planes(data.astype(jnp.int32), form.bits)


def _values(codes: Array, form: Form, kind: Any) -> Array:
    if form.bits == 8 and form.levels == "integer":
        return codes.astype(kind)
    shifted = codes.astype(jnp.int32) + form.low if form.low else codes.astype(jnp.int32)
    if form.levels == "integer":
        return shifted.astype(kind)
    return number_formats.decode(shifted, form.levels).astype(kind)


def _product(x: Array, w: Array, kind: Any) -> Array:
    return lax.dot_general(x, w, (((1,), (1,)), ((), ())), precision=_precision(x.dtype), preferred_element_type=kind)


def _precision(kind: Any) -> lax.Precision | None:
    """Of products of a dtype: only float32 has several."""
    return lax.Precision.HIGHEST if kind == jnp.float32 else None
