"""The product on TPU (Pallas, Mosaic): kept values and packed places are read, tiles of the matrix exist in VMEM only.

The matrix unit has no sparse mode, so no multiplication is saved: what can be won is memory traffic, 9/16 of the dense
bytes for 2:4 in bfloat16. `x` is laid out by place in the group beforehand, so that a tile is `cell * m` plain products
and nothing is interleaved.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from spartax.kernels.bits import cell
from spartax.kernels.nm_matmul.form import bits_of
from spartax.kernels.residual import first_sum, padded_rows
from spartax.records import Array


class Tuning(NamedTuple):
    """Choices that change the time, not the result.

    Attributes:
      examples: rows of `x` in one step.
      depth: groups of a cell in one step.
      columns: columns in one step.
    """

    examples: int
    depth: int
    columns: int


VMEM = 12 * 2**20  # bytes, of the 16 MiB that a kernel gets unasked


def tuning(batch: int, n: int, m: int, groups: int, columns: int) -> Tuning:
    """Tiles of 128 where they divide, else the whole axis; rows of `x` in whole tiles of 16, as many as VMEM holds."""
    depth = groups // cell(bits_of(m))[0]
    deep, wide = 128 if depth % 128 == 0 else depth, 256 if columns % 256 == 0 else columns
    found = Tuning(min(256, batch + -batch % 16), deep, wide)
    while found.examples > 16 and held(found, n, m) > VMEM:
        found = found._replace(examples=found.examples // 32 * 16)
    return found


def held(tune: Tuning, n: int, m: int) -> int:
    """Bytes of the tiles of the larger kernel, the pullback, in float32; all but the sum twice, to copy meanwhile."""
    count, (deep, wide) = cell(bits_of(m))[0], (side + -side % 128 for side in tune[1:])
    result, matrix = count * m * tune.examples * deep, n * tune.depth * wide
    return 4 * result + 2 * (4 * result + 4 * count * matrix + matrix + 4 * tune.examples * wide)


def misfit(n: int, m: int, groups: int, columns: int, kind: Any) -> str | None:
    """Why this kernel cannot take a case, or None."""
    bits = bits_of(m)
    if 8 % bits:
        return f"places of {bits} bits cross bytes"
    if groups % cell(bits)[0]:
        return f"{groups} groups are not a multiple of the {cell(bits)[0]} whose places make a byte"
    if held(tuning(1, n, m, groups, columns), n, m) > VMEM:
        return f"{groups} groups of {n}:{m} and {columns} columns do not divide into tiles that fit in VMEM"
    return None if jnp.dtype(kind).itemsize <= 4 else "float64 has no matrix unit"


def _by_place(x: Array, count: int, m: int, tile: int) -> Array:
    """`[B, groups * m]` -> `[cell, m, B padded to whole tiles, groups / cell]`."""
    x = jnp.pad(x, ((0, -x.shape[0] % tile), (0, 0)))
    return x.reshape(x.shape[0], count, -1, m).transpose(1, 3, 0, 2)


def matmul(
    x: Array,
    values: Array,
    data: Array,
    m: int,
    precision: lax.PrecisionLike,
    kind: jnp.dtype,
    *,
    residual: tuple[Array, Array] | None = None,
    interpret: bool = False,
) -> Array:
    """`x [B, groups * m]` times the matrix -> `[B, columns]` of dtype `kind`.

    With `residual = (t [B, r], v [r, columns])` every tile of the sum starts as its part of `t @ v`.
    """
    (n, groups, columns), count = values.shape, cell(bits_of(m))[0]
    tune = tuning(x.shape[0], n, m, groups, columns)
    x_tiles = _by_place(x, count, m, tune.examples)
    batch, depth = x_tiles.shape[2:]
    thin = [] if residual is None else [(padded_rows(residual[0], batch), residual[1])]
    out = pl.pallas_call(
        functools.partial(_multiply, m=m, precision=precision),
        grid=(batch // tune.examples, columns // tune.columns, depth // tune.depth),
        in_specs=[
            pl.BlockSpec((count, m, tune.examples, tune.depth), lambda b, c, d: (0, 0, b, d)),
            pl.BlockSpec((n, count, tune.depth, tune.columns), lambda b, c, d: (0, 0, d, c)),
            pl.BlockSpec((n, 1, tune.depth, tune.columns), lambda b, c, d: (0, 0, d, c)),
            *[pl.BlockSpec((tune.examples, v.shape[0]), lambda b, c, d: (b, 0)) for _, v in thin],
            *[pl.BlockSpec((v.shape[0], tune.columns), lambda b, c, d: (0, c)) for _, v in thin],
        ],
        out_specs=pl.BlockSpec((tune.examples, tune.columns), lambda b, c, d: (b, c)),
        out_shape=jax.ShapeDtypeStruct((batch, columns), kind),
        scratch_shapes=[pltpu.VMEM((tune.examples, tune.columns), jnp.float32)],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel", "arbitrary")),
        interpret=interpret,
    )(x_tiles, values.reshape(n, count, depth, columns), data, *[v for pair in thin for v in pair])
    return out[: x.shape[0]]


def _tiles(values: Any, data: Any, m: int, use: Callable[[int, int, Array], None]) -> None:
    """Call `use(i, j, tile)` for place `j` in the groups that are code `i` of their cells; tile `[depth, columns]`."""
    bits = bits_of(m)
    packed = data[...].astype(jnp.int32)
    for i in range(values.shape[1]):
        places = (packed[:, 0] >> (bits * i)) & (2**bits - 1)
        kept = values[:, i]
        for j in range(m):
            tile = jnp.zeros(kept.shape[1:], kept.dtype)
            for k in range(kept.shape[0]):
                tile = jnp.where(places[k] == j, kept[k], tile)
            use(i, j, tile)


def _multiply(x, values, data, *rest, m, precision) -> None:
    *thin, out, total = rest
    step = pl.program_id(2)

    @pl.when(step == 0)
    def _() -> None:
        total[...] = first_sum(thin, total, precision)

    def add(i: int, j: int, tile: Array) -> None:
        total[...] += jnp.dot(x[i, j], tile, precision=precision, preferred_element_type=jnp.float32)

    _tiles(values, data, m, add)

    @pl.when(step == pl.num_programs(2) - 1)
    def _() -> None:
        out[...] = total[...].astype(out.dtype)


def pullback(
    g: Array,
    values: Array,
    data: Array,
    m: int,
    precision: lax.PrecisionLike,
    kind: jnp.dtype,
    *,
    interpret: bool = False,
) -> Array:
    """`g [B, columns]` times the transposed matrix -> `[B, groups * m]` of dtype `kind`."""
    (n, groups, columns), count = values.shape, cell(bits_of(m))[0]
    depth = groups // count
    tune = tuning(g.shape[0], n, m, groups, columns)
    padded = jnp.pad(g, ((0, -g.shape[0] % tune.examples), (0, 0)))
    batch, shape = padded.shape[0], (count, m, tune.examples, tune.depth)
    out = pl.pallas_call(
        functools.partial(_pull, m=m, precision=precision),
        grid=(batch // tune.examples, depth // tune.depth, columns // tune.columns),
        in_specs=[
            pl.BlockSpec((tune.examples, tune.columns), lambda b, d, c: (b, c)),
            pl.BlockSpec((n, count, tune.depth, tune.columns), lambda b, d, c: (0, 0, d, c)),
            pl.BlockSpec((n, 1, tune.depth, tune.columns), lambda b, d, c: (0, 0, d, c)),
        ],
        out_specs=pl.BlockSpec(shape, lambda b, d, c: (0, 0, b, d)),
        out_shape=jax.ShapeDtypeStruct((count, m, batch, depth), kind),
        scratch_shapes=[pltpu.VMEM(shape, jnp.float32)],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel", "arbitrary")),
        interpret=interpret,
    )(padded, values.reshape(n, count, depth, columns), data)
    return out.transpose(2, 0, 3, 1).reshape(batch, groups * m)[: g.shape[0]]


def _pull(g, values, data, out, total, *, m, precision) -> None:
    step = pl.program_id(2)

    @pl.when(step == 0)
    def _() -> None:
        total[...] = jnp.zeros_like(total)

    def add(i: int, j: int, tile: Array) -> None:
        dims = (((1,), (1,)), ((), ()))
        total[i, j] += lax.dot_general(g[...], tile, dims, precision=precision, preferred_element_type=jnp.float32)

    _tiles(values, data, m, add)

    @pl.when(step == pl.num_programs(2) - 1)
    def _() -> None:
        out[...] = total[...].astype(out.dtype)
