"""The product on GPU (Pallas, Mosaic GPU, Hopper): one thread block for each column of blocks and tile of `x`.

It runs over the stored blocks of its column only: their number and places are read from global memory, the panels of
`x` and the blocks arrive by asynchronous copies some steps ahead, and the sum stays in registers.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from spartax.kernels.block_sparse_matmul.structure import Structure
from spartax.records import Array


class Tuning(NamedTuple):
    """Choices that change the time, not the result.

    Attributes:
      examples: rows of `x` of one thread block, a multiple of 64.
      stages: copies under way at a time.
    """

    examples: int
    stages: int = 4


def tuning(side: int) -> Tuning:
    """A sum of 128 rows and 128 columns takes half of the registers; wider blocks get fewer rows."""
    return Tuning(128 if side <= 128 else 64)


SWIZZLE = 128  # bytes; 64 entries of 16 bits


def misfit(block: tuple[int, int], kind: Any) -> str | None:
    """Why this kernel cannot take a case, or None."""
    if jnp.dtype(kind) not in (jnp.bfloat16, jnp.float16):
        return f"it multiplies bfloat16 or float16, not {jnp.dtype(kind).name}"
    if any(side % 64 or side > 256 for side in block):
        return f"block sides {block} are not 64, 128, 192 or 256"
    return None


def _spec(shape: tuple[int, int], where: Any) -> Any:
    transforms = (plgpu.TilingTransform((8, SWIZZLE // 2)), plgpu.SwizzleTransform(SWIZZLE))
    return plgpu.BlockSpec(shape, where, transforms=transforms, delay_release=1)


def _store(total: Array, out: Any, staged: Any) -> None:
    """Registers to shared to global memory."""
    staged[...] = total.astype(staged.dtype)
    plgpu.commit_smem()
    plgpu.copy_smem_to_gmem(staged, out)
    plgpu.wait_smem_to_gmem(0)


def _staged(shape: tuple[int, int], kind: Any) -> Any:
    transforms = (plgpu.TilingTransform((8, SWIZZLE // jnp.dtype(kind).itemsize)), plgpu.SwizzleTransform(SWIZZLE))
    return plgpu.SMEM(shape, kind, transforms=transforms)


def matmul(
    x: Array,
    values: Array,
    structure: Structure,
    precision: lax.PrecisionLike,
    kind: jnp.dtype,
    *,
    interpret: bool = False,
) -> Array:
    """`x [B, rows * r]` times blocks `[n, r, c]` -> `[B, columns * c]` of dtype `kind`."""
    (n, r, c), columns, tune = values.shape, structure.counts.shape[0], tuning(max(values.shape[1:]))
    padded = jnp.pad(x, ((0, -x.shape[0] % tune.examples), (0, 0)))
    out = plgpu.kernel(
        functools.partial(_multiply, block=(r, c), tune=tune),
        out_type=jax.ShapeDtypeStruct((padded.shape[0], columns * c), kind),
        grid=(padded.shape[0] // tune.examples, columns),
        grid_names=("examples", "columns"),
        scratch_types=[_staged((tune.examples, c), kind)],
        compiler_params=plgpu.CompilerParams(lowering_semantics=plgpu.LoweringSemantics.Warpgroup),
        interpret=interpret,
    )(
        padded,
        values.reshape(n * r, c),
        structure.rows.astype(jnp.int32),
        structure.starts,
        structure.counts.astype(jnp.int32),
    )
    return out[: x.shape[0]]


def _multiply(x, values, rows, starts, counts, out, staged, *, block, tune) -> None:
    example, column = lax.axis_index("examples"), lax.axis_index("columns")
    start = starts[column]
    shape = (tune.examples, block[1])

    def run(total) -> Array:
        def step(_, panel, stored) -> None:
            plgpu.wgmma(total, panel, stored)
            plgpu.wgmma_wait(1)

        plgpu.emit_pipeline(
            step,
            grid=(counts[column],),
            in_specs=[
                _spec((tune.examples, block[0]), lambda s: (example, rows[start + s])),
                _spec(block, lambda s: (start + s, 0)),
            ],
            max_concurrent_steps=tune.stages,
        )(x, values)
        return total[...]

    place = out.at[pl.ds(example * shape[0], shape[0]), pl.ds(column * shape[1], shape[1])]
    _store(pl.run_scoped(run, plgpu.ACC(shape, jnp.float32)), place, staged)


def sampled(x: Array, g: Array, structure: Structure, block: tuple[int, int], *, interpret: bool = False) -> Array:
    """The stored blocks of `x^T @ g`, `[n, r, c]` float32."""
    (r, c), n, tune = block, structure.rows.shape[0], tuning(max(block))
    left, right = (jnp.pad(v, ((0, -x.shape[0] % tune.examples), (0, 0))) for v in (x, g))
    out = plgpu.kernel(
        functools.partial(_correlate, block=block, tune=tune),
        out_type=jax.ShapeDtypeStruct((n * r, c), jnp.float32),
        grid=(n,),
        grid_names=("blocks",),
        scratch_types=[_staged(block, jnp.float32)],
        compiler_params=plgpu.CompilerParams(lowering_semantics=plgpu.LoweringSemantics.Warpgroup),
        interpret=interpret,
    )(left, right, structure.rows.astype(jnp.int32), structure.columns)
    return out.reshape(n, r, c)


def _correlate(x, g, rows, columns, out, staged, *, block, tune) -> None:
    own = lax.axis_index("blocks")
    row, column = rows[own], columns[own]

    def run(total) -> Array:
        def step(_, left, right) -> None:
            plgpu.wgmma(total, left.transpose((1, 0)), right)
            plgpu.wgmma_wait(1)

        plgpu.emit_pipeline(
            step,
            grid=(x.shape[0] // tune.examples,),
            in_specs=[
                _spec((tune.examples, block[0]), lambda b: (b, row)),
                _spec((tune.examples, block[1]), lambda b: (b, column)),
            ],
            max_concurrent_steps=tune.stages,
        )(x, g)
        return total[...]

    _store(pl.run_scoped(run, plgpu.ACC(block, jnp.float32)), out.at[pl.ds(own * block[0], block[0])], staged)
