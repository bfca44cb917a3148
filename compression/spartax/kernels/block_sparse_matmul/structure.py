"""Where the stored blocks of a block-sparse matrix stand."""

from typing import NamedTuple

import jax.numpy as jnp

from spartax.records import Array


class Structure(NamedTuple):
    """Blocks in the order of their column of blocks, and within it of their row: compressed sparse columns of blocks.

    Attributes:
      rows: `[n]` integers, the row of blocks of each stored block.
      counts: `[columns]` integers, how many blocks each column of blocks holds; they add up to `n`. Zero is allowed.
    """

    rows: Array
    counts: Array

    @property
    def columns(self) -> Array:
        """`[n]` int32, the column of blocks of each stored block."""
        ids = jnp.arange(self.counts.shape[0], dtype=jnp.int32)
        counts = self.counts.astype(jnp.int32)  # `repeat` adds them up in their own dtype
        return jnp.repeat(ids, counts, total_repeat_length=self.rows.shape[0])

    @property
    def starts(self) -> Array:
        """`[columns]` int32, the number of the first block of each column."""
        counts = self.counts.astype(jnp.int32)
        return jnp.cumsum(counts) - counts


def transposed(values: Array, structure: Structure, rows: int) -> tuple[Array, Structure]:
    """The transposed matrix: blocks sorted by row and transposed. `rows` is the number of rows of blocks."""
    order = jnp.argsort(structure.rows, stable=True)
    counts = jnp.bincount(structure.rows, length=rows)
    return jnp.swapaxes(values[order], 1, 2), Structure(structure.columns[order], counts)
