"""The product on GPU (Pallas, Mosaic GPU, Hopper): kept values and packed places are read, tiles of the matrix exist in
shared memory only.

Pallas does not reach the sparse tensor cores, so no multiplication is saved: what can be won is memory traffic, 9/16 of
the dense bytes for 2:4. Values and places are compared and selected in registers, entry by entry; `x` is laid out by
place in the group beforehand, so that nothing is interleaved.

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

from spartax.kernels.bits import cell
from spartax.kernels.nm_matmul.form import bits_of
from spartax.records import Array


class Tuning(NamedTuple):
    """Choices that change the time, not the result.

    Attributes:
      examples: rows of `x` of one thread block; the tensor cores take 64.
      depth: groups of a cell in one step.
      columns: columns in one step.
      stages: copies under way at a time.
    """

    examples: int = 64
    depth: int = 64
    columns: int = 64
    stages: int = 3


TUNING = Tuning()
WIDEST = 4  # a group; the tile of `x` of wider ones leaves no room for a second copy under way


def misfit(n: int, m: int, groups: int, columns: int, kind: Any) -> str | None:
    """Why this kernel cannot take a case, or None."""
    if jnp.dtype(kind) not in (jnp.bfloat16, jnp.float16):
        return f"the Mosaic GPU kernel multiplies bfloat16 or float16, not {jnp.dtype(kind).name}"
    if m > WIDEST:
        return f"the Mosaic GPU kernel takes groups of at most {WIDEST}, not {m}"
    step = TUNING.depth * cell(bits_of(m))[0]
    if groups % step or columns % TUNING.columns:
        return f"the Mosaic GPU kernel needs multiples of {step} groups and {TUNING.columns} columns"
    return None


def _spec(shape: tuple[int, int], kind: Any, where: Any) -> Any:
    return plgpu.BlockSpec(shape, where, transforms=_transforms(kind))


def _transforms(kind: Any) -> tuple:
    """Of tiles whose rows are cut into runs of 64 entries."""
    size = jnp.dtype(kind).itemsize
    swizzle = min(64 * size, 128)
    return plgpu.TilingTransform((8, swizzle // size)), plgpu.SwizzleTransform(swizzle)


class Stored(NamedTuple):
    """Values `[n * cell * depth, columns]` and packed places `[n * depth, columns]`, in global memory."""

    values: Any
    places: Any

    @classmethod
    def of(cls, values: Array, data: Array) -> "Stored":
        """As `nm_matmul` takes them."""
        columns = values.shape[-1]
        return cls(values.reshape(-1, columns), data.reshape(-1, columns))

    def specs(self, n: int, m: int, where: Any) -> list[Any]:
        """Of each value and each place of a group; `where(step)` is (depth step, code of a cell, column step)."""
        count, shape = cell(bits_of(m))[0], (TUNING.depth, TUNING.columns)
        deep = self.places.shape[0] // n // TUNING.depth

        def value(k: int, *step: Any) -> tuple:
            d, i, c = where(*step)
            return (k * count + i) * deep + d, c

        def place(k: int, *step: Any) -> tuple:
            d, _, c = where(*step)
            return k * deep + d, c

        return [
            _spec(shape, ref.dtype, functools.partial(at, k))
            for ref, at in ((self.values, value), (self.places, place))
            for k in range(n)
        ]


def _expand(values: Sequence[Any], places: Sequence[Any], code: Any, m: int, tile: Any) -> None:
    """Write the rows `[m * depth, columns]`, by place, of the groups that are code `code` of their cells."""
    bits = bits_of(m)
    byte = lambda v: (v << (bits * code)).astype(jnp.uint8)  # noqa: E731  (bytes cannot be shifted, scalars can)
    own = [ref[...] & byte(jnp.int32(2**bits - 1)) for ref in places]
    kept = [ref[...] for ref in values]
    for j in range(m):
        rows = jnp.zeros(kept[0].shape, kept[0].dtype)
        for place, value in zip(own, kept):
            rows = jnp.where(place == byte(jnp.int32(j)), value, rows)
        tile[j * TUNING.depth : (j + 1) * TUNING.depth] = rows
    plgpu.commit_smem()


def _store(total: Array, staged: Any, out: Any) -> None:
    """Registers to shared to global memory."""
    staged[...] = total
    plgpu.commit_smem()
    plgpu.copy_smem_to_gmem(staged, out)
    plgpu.wait_smem_to_gmem(0)


def _run(body: Any, args: tuple, grid: dict[str, int], shape: tuple[int, int], tile: tuple, interpret: bool) -> Array:
    """float32 of `shape`, each thread block of the grid with room for a tile of the matrix and one of the result."""
    rows, width = tile
    kind = args[0].dtype
    return plgpu.kernel(
        body,
        out_type=jax.ShapeDtypeStruct(shape, jnp.float32),
        grid=tuple(grid.values()),
        grid_names=tuple(grid),
        scratch_types=[
            plgpu.SMEM((rows, TUNING.columns), kind, transforms=_transforms(kind)),
            plgpu.SMEM((TUNING.examples, width), jnp.float32, transforms=_transforms(jnp.float32)),
        ],
        compiler_params=plgpu.CompilerParams(lowering_semantics=plgpu.LoweringSemantics.Warpgroup),
        interpret=interpret,
    )(*args)


def _padded(x: Array) -> Array:
    return jnp.pad(x, ((0, -x.shape[0] % TUNING.examples), (0, 0)))


def matmul(
    x: Array,
    values: Array,
    data: Array,
    m: int,
    precision: lax.PrecisionLike,
    kind: jnp.dtype,
    *,
    interpret: bool = False,
) -> Array:
    """`x [B, groups * m]` times the matrix -> `[B, columns]` of dtype `kind`."""
    (n, groups, columns), count = values.shape, cell(bits_of(m))[0]
    tiles = _padded(x).reshape(-1, count, groups // count // TUNING.depth, TUNING.depth, m)
    tiles = tiles.transpose(0, 2, 1, 4, 3).reshape(-1, groups * m)  # by step, code of a cell, place
    grid = {"examples": tiles.shape[0] // TUNING.examples, "columns": columns // TUNING.columns}
    shape, tile = (tiles.shape[0], columns), (m * TUNING.depth, TUNING.columns)
    body = functools.partial(_multiply, n=n, m=m)
    return _run(body, (tiles, *Stored.of(values, data)), grid, shape, tile, interpret)[: x.shape[0]].astype(kind)


def _multiply(x, values, places, out, tile, staged, *, n, m) -> None:
    example, column = lax.axis_index("examples"), lax.axis_index("columns")
    count, width = cell(bits_of(m))[0], m * TUNING.depth

    def run(total: Any) -> Array:
        def step(at: Any, panel: Any, *stored: Any) -> None:
            _expand(stored[:n], stored[n:], at[0] % count, m, tile)
            plgpu.wgmma(total, panel, tile)
            plgpu.wgmma_wait(0)
            plgpu.commit_smem()  # no warp may still read the tile when the next one is written

        own = Stored(values, places).specs(n, m, lambda s: (s // count, s % count, column))
        plgpu.emit_pipeline(
            step,
            grid=(x.shape[1] // width,),
            in_specs=[_spec((TUNING.examples, width), x.dtype, lambda s: (example, s)), *own],
            max_concurrent_steps=TUNING.stages,
        )(x, *[values] * n, *[places] * n)
        return total[...]

    shape = (TUNING.examples, TUNING.columns)
    place = out.at[pl.ds(example * shape[0], shape[0]), pl.ds(column * shape[1], shape[1])]
    _store(pl.run_scoped(run, plgpu.ACC(shape, jnp.float32)), staged, place)


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
    (n, groups, _), count = values.shape, cell(bits_of(m))[0]
    padded, deep, width = _padded(g), groups // count // TUNING.depth, m * TUNING.depth
    grid = {"examples": padded.shape[0] // TUNING.examples, "steps": deep, "codes": count}
    shape, tile = (padded.shape[0], groups * m), (width, width)
    body = functools.partial(_pull, n=n, m=m)
    out = _run(body, (padded, *Stored.of(values, data)), grid, shape, tile, interpret)
    out = out.reshape(-1, deep, count, m, TUNING.depth).transpose(0, 2, 1, 4, 3)
    return out.reshape(-1, groups * m)[: g.shape[0]].astype(kind)


def _pull(g, values, places, out, tile, staged, *, n, m) -> None:
    example, deep, code = (lax.axis_index(name) for name in ("examples", "steps", "codes"))
    shape = (TUNING.examples, m * TUNING.depth)

    def run(total: Any) -> Array:
        def step(_, panel: Any, *stored: Any) -> None:
            _expand(stored[:n], stored[n:], code, m, tile)
            plgpu.wgmma(total, panel, tile.transpose((1, 0)))
            plgpu.wgmma_wait(0)
            plgpu.commit_smem()  # no warp may still read the tile when the next one is written

        own = Stored(values, places).specs(n, m, lambda c: (deep, code, c))
        plgpu.emit_pipeline(
            step,
            grid=(g.shape[1] // TUNING.columns,),
            in_specs=[_spec((TUNING.examples, TUNING.columns), g.dtype, lambda c: (example, c)), *own],
            max_concurrent_steps=TUNING.stages,
        )(g, *[values] * n, *[places] * n)
        return total[...]

    column = (deep * cell(bits_of(m))[0] + code) * shape[1]
    place = out.at[pl.ds(example * shape[0], shape[0]), pl.ds(column, shape[1])]
    _store(pl.run_scoped(run, plgpu.ACC(shape, jnp.float32)), staged, place)
