"""Counts in whole units: what an allocation says, rounded to blocks, rows or channels."""

from collections.abc import Mapping

import numpy as np

from spartax.prune.allocations.pooled import lift
from spartax.records import Path


def whole(counts: Mapping[Path, int], units: Mapping[Path, int], sizes: Mapping[Path, int]) -> dict[Path, int]:
    """Multiples of the units, together at most the counts together and less than one unit of any weight below.

    A weight that keeps anything keeps one unit at least; where that lifts some, the others shrink by one factor. Then
    all are rounded down, and what is left is given out one unit at a time, to the largest remainders first. A weight
    whose size is no multiple of its unit is dense or at a multiple.

    Args:
      counts: kept entries of every weight.
      units: entries of one unit of every weight.
      sizes: entries of every weight.

    Raises:
      ValueError: one unit of each weight is more than all the counts together.
    """
    wanted, unit, size = (np.array([m[path] for path in counts], np.int64) for m in (counts, units, sizes))
    floors = np.where(wanted > 0, np.minimum(unit, size), 0)
    refuse_too_few(wanted.sum(), floors.sum(), size.sum())
    real = lift(wanted, floors) + 1e-9
    kept = np.where(real >= size, size, np.floor(real / unit).astype(np.int64) * unit)
    for i in np.argsort(kept / unit - real / unit, kind="stable"):
        step = min(unit[i], size[i] - kept[i])
        kept[i] += step if wanted[i] > 0 and kept.sum() + step <= wanted.sum() else 0
    return dict(zip(counts, kept.tolist()))


def refuse_too_few(kept: int, needed: int, size: int) -> None:
    """Kept entries of all weights together must be one unit of each at least."""
    if needed > kept:
        raise ValueError(
            f"sparsity is too high for the pattern: it leaves {kept} of {size} entries, but one unit of each weight "
            f"takes {needed}; lower the sparsity or take smaller units."
        )
