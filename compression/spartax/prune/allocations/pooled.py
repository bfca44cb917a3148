"""Pooled: one ranking over all weights together, with a floor for every layer."""

import math
from typing import NamedTuple

import numpy as np

from spartax import checks
from spartax.kernels import threshold
from spartax.records import Allocation, Evidence, Path, Weights


def pooled(min_kept: int | float = 0.005) -> Allocation:
    """The `K = round((1 - sparsity) N)` largest scores over all weights; how many of them are in `l` is `k_l`.

    A plain global cut can empty a small layer, which cuts the network in two. So a layer with `k_l < m_l` is lifted to
    its floor `m_l`, and the counts of the others shrink by one common factor, until none is under its floor; the total
    stays exactly `K`. Runs outside `jit`: counts are Python integers.

    Args:
      min_kept: floor of every layer: a fraction of its size when a float in [0, 1), a count when an integer (a layer
        not larger than that stays dense). 0 gives the plain global cut.

    Raises:
      ValueError: `min_kept` outside its range; at use, the floors together exceed `K`.
    """
    check_floor(min_kept)
    return _Pooled(min_kept)


class _Pooled(NamedTuple):
    """The allocation; a value, so that its floors can be checked before there are scores."""

    min_kept: int | float

    def foresee(self, shapes: Weights, sparsity: float, evidence: Evidence) -> None:
        """Floors that exceed what is kept are refused."""
        del evidence
        sizes = np.array([shape.size for shape in shapes.values()])
        keep, least = round((1 - sparsity) * int(sizes.sum())), least_kept(self.min_kept, sizes).sum()
        if least > keep:
            raise ValueError(
                f"min_kept={self.min_kept} asks for {least} weights, but this sparsity keeps {keep} of {sizes.sum()}; "
                "lower min_kept or the sparsity."
            )

    def __call__(self, scores: Weights, sparsity: float, evidence: Evidence) -> dict[Path, int]:
        self.foresee(scores, sparsity, evidence)
        sizes = np.array([score.size for score in scores.values()])
        keep = round((1 - sparsity) * int(sizes.sum()))
        counts = np.asarray(threshold.kth_largest(list(scores.values()), keep).kept, np.int64)
        kept = settle(lift(counts, least_kept(self.min_kept, sizes)), sizes, keep)
        return dict(zip(scores, kept.tolist()))


def lift(counts: np.ndarray, floors: np.ndarray) -> np.ndarray:
    """Water-filling: real counts of the same total, none under its floor, the others scaled by one factor.

    Args:
      counts: `[layers]`, the counts of the global cut.
      floors: `[layers]`, at most `counts.sum()` together.
    """
    total, counts = counts.sum(), counts.astype(np.float64)
    fixed, scaled = counts < floors, counts
    for _ in counts:
        rest = counts[~fixed].sum()
        scaled = counts * ((total - floors[fixed].sum()) / rest if rest else 0.0)
        under = ~fixed & (scaled < floors)
        if not under.any():
            break
        fixed |= under
    return np.where(fixed, floors, scaled)


def check_floor(min_kept: int | float) -> None:
    """The option `min_kept` must be a count, or a fraction of a layer."""
    if isinstance(min_kept, int):
        checks.positive_int("min_kept", min_kept, least=0)
    else:
        checks.in_range("min_kept", min_kept, 0.0, 1.0, open_high=True)


def least_kept(min_kept: int | float, sizes: np.ndarray) -> np.ndarray:
    """The least count of every layer, `[layers]`."""
    least = [math.ceil(min_kept * n) if isinstance(min_kept, float) else min(min_kept, n) for n in sizes]
    return np.array(least, np.int64)


def settle(counts: np.ndarray, sizes: np.ndarray, keep: int) -> np.ndarray:
    """Whole numbers: rounded down, and what is left goes to the largest layer that has room."""
    whole = np.floor(counts + 1e-9).astype(np.int64)
    for layer in np.argsort(-sizes, kind="stable"):
        whole[layer] += min(keep - whole.sum(), sizes[layer] - whole[layer])
    return whole
