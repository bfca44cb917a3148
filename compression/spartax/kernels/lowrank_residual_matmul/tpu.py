"""The product on TPU (Pallas, Mosaic): the kernels of the bases, their sums started with the low-rank term.

Not measured: no TPU was at hand. It is tested in interpret mode, and lowered to Mosaic without a TPU.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from spartax.kernels.block_sparse_matmul import tpu as blocks_tpu
from spartax.kernels.lowrank_residual_matmul.bases import Base, Blocks, Codes, Groups
from spartax.kernels.nm_matmul import tpu as groups_tpu
from spartax.kernels.quantized_matmul import tpu as codes_tpu
from spartax.kernels.residual import first_sum
from spartax.records import Array

ROWS, INPUTS, OUTPUTS = 256, 512, 256  # largest tiles of the dense product


def matmul(x: Array, base: Base, t: Array, v: Array, precision: lax.PrecisionLike, *, interpret: bool = False) -> Array:
    """`x W + t V`: x `[B, K]`, t `[B, r]`, V `[r, O]` -> `[B, O]`."""
    kind = jnp.promote_types(x.dtype, jnp.float32)
    options: dict[str, Any] = {"interpret": interpret}
    match base:
        case Codes():
            return codes_tpu.matmul(x, *base, residual=(t, v), **options)
        case Groups():
            base = base._replace(values=base.values.astype(x.dtype))
            return groups_tpu.matmul(x, *base, precision, kind, residual=(t, v), **options)
        case Blocks():
            start = jnp.matmul(t, v, precision=precision, preferred_element_type=kind)
            base = base._replace(values=base.values.astype(x.dtype))
            return blocks_tpu.matmul(x, *base, precision, kind, start=start, **options)
    return _dense(x, base.matrix.astype(x.dtype), t, v, precision, kind, interpret)


def _dense(
    x: Array, w: Array, t: Array, v: Array, precision: lax.PrecisionLike, kind: jnp.dtype, interpret: bool
) -> Array:
    (count, inputs), outputs, rank = x.shape, w.shape[1], v.shape[0]
    rows, deep, wide = min(ROWS, _up(count, 16)), min(INPUTS, _up(inputs, 128)), min(OUTPUTS, _up(outputs, 128))
    padded = lambda a, r, c: jnp.pad(a, ((0, -a.shape[0] % r), (0, -a.shape[1] % c)))  # noqa: E731
    x, w, t, v = padded(x, rows, deep), padded(w, deep, wide), padded(t, rows, 1), padded(v, 1, wide)
    out = pl.pallas_call(
        functools.partial(_multiply, precision=precision),
        grid=(x.shape[0] // rows, w.shape[1] // wide, w.shape[0] // deep),
        in_specs=[
            pl.BlockSpec((rows, deep), lambda i, j, k: (i, k)),
            pl.BlockSpec((deep, wide), lambda i, j, k: (k, j)),
            pl.BlockSpec((rows, rank), lambda i, j, k: (i, 0)),
            pl.BlockSpec((rank, wide), lambda i, j, k: (0, j)),
        ],
        out_specs=pl.BlockSpec((rows, wide), lambda i, j, k: (i, j)),
        out_shape=jax.ShapeDtypeStruct((x.shape[0], w.shape[1]), kind),
        scratch_shapes=[pltpu.VMEM((rows, wide), jnp.float32)],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel", "arbitrary")),
        interpret=interpret,
    )(x, w, t, v)
    return out[:count, :outputs]


def _up(n: int, to: int) -> int:
    return -(-n // to) * to


def _multiply(x, w, t, v, out, total, *, precision) -> None:
    @pl.when(pl.program_id(2) == 0)
    def _() -> None:
        total[...] = first_sum((t, v), total, precision)

    total[...] += jnp.dot(x[...], w[...], precision=precision, preferred_element_type=jnp.float32)

    @pl.when(pl.program_id(2) == pl.num_programs(2) - 1)
    def _() -> None:
        out[...] = total[...].astype(out.dtype)
