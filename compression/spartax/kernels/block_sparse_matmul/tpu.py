"""The product on TPU (Pallas, Mosaic): a grid over stored blocks, whose places are prefetched scalars.

Blocks of one column follow each other, so their sum stays in VMEM until the column changes. Columns without a block are
never visited: the output starts as zeros (or as what is to be added), aliased.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from spartax.kernels.block_sparse_matmul.structure import Structure
from spartax.records import Array


class Tuning(NamedTuple):
    """Choices that change the time, not the result.

    Attributes:
      examples: rows of `x` in one step.
    """

    examples: int = 512


TUNING = Tuning()
MOST = 2**16  # stored blocks: two scalars of each are prefetched to SMEM


def misfit(block: tuple[int, int], n: int, kind: Any) -> str | None:
    """Why this kernel cannot take a case, or None."""
    if n > MOST:
        return f"{n} stored blocks are more than the {MOST} whose places fit in scalar memory"
    if block[0] % 8 or block[1] % 8:
        return f"block sides {block} are not multiples of 8"
    return None if jnp.dtype(kind).itemsize <= 4 else "float64 has no matrix unit"


def _tile(batch: int) -> int:
    """Rows of `x` in one step: all of them up to the limit, in whole tiles of 16 (the sublanes of bfloat16)."""
    return min(TUNING.examples, batch + -batch % 16)


def _panels(x: Array, side: int, tile: int) -> Array:
    """`[B, k * side]` -> `[k, B padded to whole tiles, side]`."""
    x = jnp.pad(x, ((0, -x.shape[0] % tile), (0, 0)))
    return jnp.swapaxes(x.reshape(x.shape[0], -1, side), 0, 1)


def matmul(
    x: Array,
    values: Array,
    structure: Structure,
    precision: lax.PrecisionLike,
    kind: jnp.dtype,
    *,
    start: Array | None = None,
    interpret: bool = False,
) -> Array:
    """`x [B, rows * r]` times blocks `[n, r, c]` -> `[B, columns * c]` of dtype `kind`, added to `start` if given."""
    (n, r, c), columns, tile = values.shape, structure.counts.shape[0], _tile(x.shape[0])
    panels = _panels(x, r, tile)
    places = structure.rows.astype(jnp.int32), structure.columns
    own = pl.BlockSpec((None, tile, c), lambda b, s, rows, columns: (columns[s], b, 0))
    empty = jnp.zeros((columns, panels.shape[1], c), kind) if start is None else _panels(start.astype(kind), c, tile)
    out = pl.pallas_call(
        functools.partial(_multiply, seeded=start is not None, precision=precision),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2,
            grid=(panels.shape[1] // tile, n),
            in_specs=[
                pl.BlockSpec((None, tile, r), lambda b, s, rows, columns: (rows[s], b, 0)),
                pl.BlockSpec((None, r, c), lambda b, s, rows, columns: (s, 0, 0)),
                pl.BlockSpec(memory_space=pl.ANY) if start is None else own,
            ],
            out_specs=own,
            scratch_shapes=[pltpu.VMEM((tile, c), jnp.float32)],
        ),
        out_shape=jax.ShapeDtypeStruct((columns, panels.shape[1], c), kind),
        input_output_aliases={4: 0},
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
        interpret=interpret,
    )(*places, panels, values, empty)
    return jnp.swapaxes(out, 0, 1).reshape(panels.shape[1], columns * c)[: x.shape[0]]


def _multiply(rows, columns, x, block, start, out, total, *, seeded, precision) -> None:
    step, last = pl.program_id(1), pl.num_programs(1) - 1
    own = columns[step]

    @pl.when((step == 0) | (columns[jnp.maximum(step - 1, 0)] != own))
    def _() -> None:
        total[...] = start[...].astype(total.dtype) if seeded else jnp.zeros_like(total)

    total[...] += jnp.dot(x[...], block[...], precision=precision, preferred_element_type=jnp.float32)

    @pl.when((step == last) | (columns[jnp.minimum(step + 1, last)] != own))
    def _() -> None:
        out[...] = total[...].astype(out.dtype)


def sampled(
    x: Array,
    g: Array,
    structure: Structure,
    block: tuple[int, int],
    precision: lax.PrecisionLike,
    *,
    interpret: bool = False,
) -> Array:
    """The stored blocks of `x^T @ g`, `[n, r, c]`."""
    (r, c), n, tile = block, structure.rows.shape[0], _tile(x.shape[0])
    left, right = _panels(x, r, tile), _panels(g, c, tile)
    kind = jnp.promote_types(x.dtype, g.dtype)
    return pl.pallas_call(
        functools.partial(_correlate, precision=precision),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2,
            grid=(n, left.shape[1] // tile),
            in_specs=[
                pl.BlockSpec((None, tile, r), lambda s, b, rows, columns: (rows[s], b, 0)),
                pl.BlockSpec((None, tile, c), lambda s, b, rows, columns: (columns[s], b, 0)),
            ],
            out_specs=pl.BlockSpec((None, r, c), lambda s, b, rows, columns: (s, 0, 0)),
            scratch_shapes=[pltpu.VMEM((r, c), jnp.float32)],
        ),
        out_shape=jax.ShapeDtypeStruct((n, r, c), kind),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
        interpret=interpret,
    )(structure.rows.astype(jnp.int32), structure.columns, left, right)


def _correlate(rows, columns, x, g, out, total, *, precision) -> None:
    step = pl.program_id(1)

    @pl.when(step == 0)
    def _() -> None:
        total[...] = jnp.zeros_like(total)

    dims = (((0,), (0,)), ((), ()))
    total[...] += lax.dot_general(x[...], g[...], dims, precision=precision, preferred_element_type=jnp.float32)

    @pl.when(step == pl.num_programs(1) - 1)
    def _() -> None:
        out[...] = total[...].astype(out.dtype)
