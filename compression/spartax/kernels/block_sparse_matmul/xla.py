"""The product in plain XLA, arranged for CPU.

For many rows of `x`, every column of blocks is one dot: its stored blocks below each other, times the panels of `x`
that they meet. How many there are is data, so a loop over columns branches into a dot of the right depth, a little
padded. For few rows, every block is a small product where it lies, and the products of a column are added up
afterwards: the sums are small then, and nothing is gathered but slices of `x`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from spartax.kernels.block_sparse_matmul.structure import Structure
from spartax.records import Array


class Tuning(NamedTuple):
    """Choices that change the time, not the result.

    Attributes:
      few: rows of `x` up to which every block may be a product of its own,
      products: as long as all of these products together have no more entries than this (8 MiB of float32).
      together: columns of blocks, of like depth, in one batched dot.
      examples: rows of `x` at a time, so that the panels that are gathered stay in cache.
      blocks: blocks at a time in the gradient.
    """

    few: int = 64
    products: int = 2**21
    together: int = 2
    examples: int = 256
    blocks: int = 8


def matmul(
    x: Array, values: Array, structure: Structure, precision: lax.PrecisionLike, kind: jnp.dtype, tuning: Tuning
) -> Array:
    """`x [B, rows * r]` times blocks `[n, r, c]` -> `[B, columns * c]` of dtype `kind`."""
    if by_block(x.shape[0], values.shape, tuning):
        return _by_block(x, values, structure, precision, kind)
    tiles = -(-x.shape[0] // tuning.examples)
    rows = -(-x.shape[0] // tiles)
    upright = jnp.pad(x, ((0, tiles * rows - x.shape[0]), (0, 0))).reshape(tiles, rows, -1)
    flat = jnp.swapaxes(upright, 1, 2)  # outside the loop, where XLA moves whole cache lines
    out = _by_column(flat, values, structure, precision, kind, tuning.together)
    return jnp.swapaxes(out, 1, 2).reshape(tiles * rows, -1)[: x.shape[0]]


def by_block(batch: int, values: tuple[int, ...], tuning: Tuning) -> bool:
    """Whether every block is a product of its own: few rows of `x`, and few products altogether."""
    n, r, c = values
    return batch <= tuning.few and n * max(r, c) * batch <= tuning.products


def _by_block(x: Array, values: Array, structure: Structure, precision: lax.PrecisionLike, kind: jnp.dtype) -> Array:
    r, c = values.shape[1:]
    met = jnp.swapaxes(x.reshape(x.shape[0], -1, r), 0, 1)[structure.rows.astype(jnp.int32)]
    parts = lax.dot_general(met, values, (((2,), (1,)), ((0,), (0,))), precision=precision, preferred_element_type=kind)
    columns = structure.counts.shape[0]
    total = jax.ops.segment_sum(parts, structure.columns, columns, indices_are_sorted=True)
    return jnp.swapaxes(total, 0, 1).reshape(x.shape[0], columns * c)


def depths(most: int) -> tuple[int, ...]:
    """Depths that a dot is compiled for: all up to 8, then four an octave, the last at least `most`."""
    found = list(range(1, min(most, 8) + 1))
    while found[-1] < most:
        found.append(found[-1] + 2 ** ((found[-1]).bit_length() - 3))
    return tuple(found)


def _by_column(
    x: Array, values: Array, structure: Structure, precision: lax.PrecisionLike, kind: jnp.dtype, together: int
) -> Array:
    """Tiles of examples `x [tiles, rows * r, B]` -> `[tiles, columns * c, B]`."""
    r, c = values.shape[1:]
    (tiles, height, batch), columns = x.shape, structure.counts.shape[0]
    panels, rows = x.reshape(-1, r, batch), structure.rows.astype(jnp.int32)
    order = jnp.argsort(-structure.counts.astype(jnp.int32))  # like depths together
    order = jnp.pad(order, (0, -columns % together), constant_values=columns)
    counts, starts = (jnp.pad(v, (0, 1))[order] for v in (structure.counts.astype(jnp.int32), structure.starts))
    sizes, steps = depths(height // r), order.shape[0] // together

    def product(depth: int, tile: Array, count: Array, start: Array) -> Array:
        place = jnp.arange(depth)
        stored = place < count[:, None]
        slot = jnp.where(stored, start[:, None] + place, 0)
        blocks = jnp.where(stored[:, :, None, None], values[slot], 0).reshape(together, depth * r, c)
        met = panels[tile * (height // r) + rows[slot]].reshape(together, depth * r, batch)
        dims = (((1,), (1,)), ((0,), (0,)))
        return lax.dot_general(blocks, met, dims, precision=precision, preferred_element_type=kind)

    def step(i: Array, out: Array) -> Array:
        tile, part = i // steps, i % steps
        own = lambda v: lax.dynamic_slice_in_dim(v, part * together, together)  # noqa: E731
        count, start, column = own(counts), own(starts), own(order)
        branch = jnp.searchsorted(jnp.asarray(sizes), jnp.max(count))
        done = lax.switch(branch, [lambda d=d: product(d, tile, count, start) for d in sizes])
        place = jnp.where(column < columns, tile * columns + column, tiles * columns)
        for k in range(together):
            out = lax.dynamic_update_slice_in_dim(out, done[k], place[k] * c, 0)
        return out

    spare = int(columns % together > 0)  # one column more takes what is padded
    start = lax.empty(((tiles * columns + spare) * c, batch), kind)
    return lax.fori_loop(0, tiles * steps, step, start)[: tiles * columns * c].reshape(tiles, columns * c, batch)


def sampled(
    x: Array, g: Array, structure: Structure, block: tuple[int, int], precision: lax.PrecisionLike, tuning: Tuning
) -> Array:
    """The stored blocks of `x^T @ g`, a few at a time: `[n, r, c]`."""
    (r, c), size = block, tuning.blocks
    kind = jnp.promote_types(x.dtype, g.dtype)
    left, right = x.T.reshape(-1, r, x.shape[0]), g.T.reshape(-1, c, g.shape[0])
    pairs = jnp.stack([structure.rows.astype(jnp.int32), structure.columns], axis=1)
    n = pairs.shape[0]
    pairs = jnp.pad(pairs, ((0, -n % size), (0, 0))).reshape(-1, size, 2)

    def product(pair: Array) -> Array:
        dims = (((2,), (2,)), ((0,), (0,)))
        return lax.dot_general(
            left[pair[:, 0]], right[pair[:, 1]], dims, precision=precision, preferred_element_type=kind
        )

    return lax.map(product, pairs).reshape(-1, r, c)[:n]
