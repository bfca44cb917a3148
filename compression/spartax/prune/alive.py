"""Weights some of whose entries are gone for good: their scores are minus infinity."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from spartax.prune.allocations.pooled import lift, settle
from spartax.records import Array, Path, Weights


def alive(scores: Weights) -> dict[Path, int]:
    """Entries of every weight that may be kept."""
    return {path: int(n) for path, n in _alive(scores).items()}


def at_most(counts: Mapping[Path, int], most: Mapping[Path, int], sizes: Mapping[Path, int]) -> dict[Path, int]:
    """The counts, none above what its weight may keep; what is cut off goes to the weights that have room.

    The entries that those remove shrink by one factor, so that the total stays what it was, or becomes all that may be
    kept where that is less.

    Args:
      counts: kept entries of every weight.
      most: entries that may be kept of every weight.
      sizes: entries of every weight.
    """
    wanted, room, size = (np.array([m[path] for path in counts], np.int64) for m in (counts, most, sizes))
    if wanted.sum() >= room.sum():
        return dict(zip(counts, room.tolist()))
    kept = settle(size - lift(size - wanted, size - room), room, int(wanted.sum()))
    return dict(zip(counts, kept.tolist()))


@jax.jit
def _alive(scores: Weights) -> dict[Path, Array]:
    return {path: jnp.sum(~jnp.isneginf(score)) for path, score in scores.items()}
