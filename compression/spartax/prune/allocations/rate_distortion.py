"""Rate-distortion: the sparsities whose measured output errors add up to least."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from spartax import checks, knapsack
from spartax.prune.alive import alive
from spartax.prune.allocations import _curves
from spartax.records import Allocation, Evidence, Path, Weights

GRID = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995, 0.998)


def rate_distortion(sparsities: Sequence[float] = GRID, worst: bool = False, buckets: int = 10_000) -> Allocation:
    """Minimises `sum_l delta_l(s_l)` subject to `sum_l kept_l <= round((1 - sparsity) N)`.

    `delta_l(s)` is the squared error of the network's logits, measured on the batches of `evidence.objective`, with
    layer `l` alone pruned to sparsity `s`; errors of different layers nearly add up. The best point of every curve is
    found exactly by a dynamic programme over the kept entries, and what a grid of sparsities leaves unspent goes where
    the curves are steepest, so that the total is exact. One forward pass of all batches for every layer and sparsity.

    See Xu et al., Efficient Joint Optimization of Layer-Adaptive Weight Pruning in Deep Neural Networks,
    arXiv 2308.10438.

    Args:
      sparsities: grid on which the curves are measured, in [0, 1).
      worst: measure the error of the worst example instead of the mean.
      buckets: kept entries are counted in this many steps, rounded up, when there are more.

    Raises:
      ValueError: a grid that is empty or leaves [0, 1); at use, evidence without an objective, or a sparsity above
        that of the grid.
    """
    if not sparsities:
        raise ValueError("sparsities must hold at least one number.")
    for value in sparsities:
        checks.in_range("sparsities", value, 0.0, 1.0, open_high=True)
    checks.positive_int("buckets", buckets)
    return _RateDistortion(tuple(sorted({0.0, *sparsities})), worst, buckets)


class _RateDistortion(NamedTuple):
    """The allocation; a value, so that what it needs can be asked for."""

    grid: tuple[float, ...]
    worst: bool
    buckets: int

    @property
    def needs(self) -> frozenset[str]:
        """The network and the dense weights."""
        return _curves.NEEDS

    def foresee(self, shapes: Weights, sparsity: float, evidence: Evidence) -> None:
        """A grid that ends below the sparsity is refused."""
        del evidence
        least = sum(_counts(shape.size, self.grid, shape.size)[-1] for shape in shapes.values())
        if least > _total(shapes, sparsity):
            raise ValueError(
                f"sparsity {sparsity} is above the grid, which ends at {self.grid[-1]}; add larger sparsities."
            )

    def __call__(self, scores: Weights, sparsity: float, evidence: Evidence) -> dict[Path, int]:
        self.foresee(scores, sparsity, evidence)
        return self.chosen(self.curves(scores, evidence), scores, sparsity)

    def curves(self, scores: Weights, evidence: Evidence) -> dict[Path, np.ndarray]:
        """The errors of every layer at each count, which are the same for all sparsities."""
        return _curves.distortions(scores, self._counts(scores), evidence, self.worst)

    def chosen(self, curves: dict[Path, np.ndarray], scores: Weights, sparsity: float) -> dict[Path, int]:
        """The counts that these curves call for."""
        counts = self._counts(scores)
        keep = min(_total(scores, sparsity), sum(row[0] for row in counts.values()))
        rows, prices = [curves[path] for path in scores], [counts[path] for path in scores]
        picked = knapsack.choose(rows, prices, keep, buckets=self.buckets)
        return dict(zip(scores, fill(rows, prices, picked, keep)))

    def _counts(self, scores: Weights) -> dict[Path, list[int]]:
        most = alive(scores)
        return {path: _counts(score.size, self.grid, most[path]) for path, score in scores.items()}


def fill(curves: Sequence[np.ndarray], counts: Sequence[Sequence[int]], chosen: Sequence[int], keep: int) -> list[int]:
    """The chosen counts, and the entries that are still missing from `keep` where a curve falls most for one entry.

    A layer is filled up to its next point of the grid before the slopes are looked at again.
    """
    at, kept = list(chosen), [row[i] for row, i in zip(counts, chosen)]
    slope = lambda l: (curves[l][at[l]] - curves[l][at[l] - 1]) / (counts[l][at[l] - 1] - counts[l][at[l]])  # noqa: E731
    while sum(kept) < keep:
        best = max((layer for layer in range(len(at)) if at[layer]), key=slope)
        kept[best] += min(keep - sum(kept), counts[best][at[best] - 1] - kept[best])
        at[best] -= 1
    return kept


def _total(shapes: Weights, sparsity: float) -> int:
    return round((1 - sparsity) * sum(shape.size for shape in shapes.values()))


def _counts(size: int, grid: Sequence[float], most: int) -> list[int]:
    """What is left of a layer at each sparsity, each count once, at least one entry, and at most those there are."""
    return sorted({min(most, max(1, size - int(s * size + 1e-9))) for s in grid}, reverse=True)
