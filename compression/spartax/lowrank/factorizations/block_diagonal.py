"""Block-diagonal plus low rank: groups that do not meet, and a thin part in which all do."""

from collections.abc import Mapping

import jax.numpy as jnp

from spartax import checks
from spartax.arrays import BlockDiagonal, LowRank, Sum, dense
from spartax.lowrank.matrices import truncated, wide
from spartax.records import Array, Factorization, Layout


def block_diagonal(groups: int = 4, iterations: int = 10) -> Factorization:
    """`W = B + left right`: `B` block diagonal in `groups` blocks, the rest of the given rank, fitted in turns.

    `left right` is the truncated SVD of `W - B`, `B` the blocks of `W - left right`; every half-step lowers the
    Frobenius error, so the result is at least as near as a block diagonal or a low-rank matrix of its parts alone. For
    weights stored as `[*spatial, I, O]` whose channels the groups divide; others stay dense.

    Args:
      groups: number of blocks.
      iterations: rounds.

    Raises:
      ValueError: `groups` below two or `iterations` below one.
    """
    checks.positive_int("groups", groups, least=2)
    checks.positive_int("iterations", iterations)

    def unfold(weight: Array, layout: Layout) -> dict[str, Array]:
        in_order = layout.inputs == tuple(range(weight.ndim - 1)) and layout.outputs == (weight.ndim - 1,)
        divided = all(size % groups == 0 for size in weight.shape[-2:])
        return {"": _matrix(weight)} if in_order and divided and layout.groups == 1 else {}

    def build(weight: Array, layout: Layout, ranks: dict[str, int], statistics: Mapping[str, Array]) -> Sum:
        del layout, statistics
        full = wide(weight)
        left, right = truncated(_matrix(full), ranks[""])
        blocks = _blocks(full - (left @ right).reshape(full.shape), groups)
        for _ in range(iterations):
            left, right = truncated(_matrix(full - dense(BlockDiagonal(blocks, groups))), ranks[""])
            blocks = _blocks(full - (left @ right).reshape(full.shape), groups)
        low = LowRank(left.reshape(*full.shape[:-1], -1).astype(weight.dtype), right.astype(weight.dtype))
        return Sum((BlockDiagonal(blocks.astype(weight.dtype), groups), low))

    return Factorization(frozenset(), unfold, build)


def _matrix(weight: Array) -> Array:
    return weight.reshape(-1, weight.shape[-1])


def _blocks(weight: Array, groups: int) -> Array:
    """The diagonal blocks, as `BlockDiagonal` stores them: `[*spatial, I / groups, O]`."""
    *spatial, inputs, outputs = weight.shape
    split = weight.reshape(*spatial, groups, inputs // groups, groups, outputs // groups)
    kept = jnp.moveaxis(jnp.diagonal(split, axis1=-4, axis2=-2), -1, -2)  # [*spatial, I / groups, groups, O / groups]
    return kept.reshape(*spatial, inputs // groups, outputs)
