"""By MACs: one ranking over all weights together under a budget of multiply-adds."""

from typing import NamedTuple

import jax
import numpy as np

from spartax import catalog
from spartax.kernels import threshold
from spartax.prune.allocations.pooled import check_floor, least_kept
from spartax.records import Allocation, Array, Evidence, Path, Weights


def by_macs(min_kept: int | float = 0.005) -> Allocation:
    """Keeps the entries with the most score per multiply-add until `(1 - sparsity)` of all multiply-adds are spent.

    An entry of layer `l` costs `MACs_l / n_l`, as often as the program uses it: those of early convolutions are dear.
    Ranking `score / cost` over all weights maximises the kept score; the budget is never exceeded, and missed by less
    than one entry. `sparsity` is thus the removed fraction of multiply-adds, not of entries.

    Args:
      min_kept: floor of every layer, as for `pooled`.

    Raises:
      ValueError: `min_kept` outside its range; at use, no evidence of uses, a weight that the program does not use, or
        floors that cost more than the budget.
    """
    check_floor(min_kept)
    return _ByMacs(min_kept)


class _ByMacs(NamedTuple):
    """The allocation; a value, so that what it needs can be asked for."""

    min_kept: int | float

    fixes_total = False  # the sparsity is that of multiply-adds

    @property
    def needs(self) -> frozenset[str]:
        """How the program uses each weight."""
        return frozenset({"uses"})

    def foresee(self, shapes: Weights, sparsity: float, evidence: Evidence) -> None:
        """Floors that cost more than the budget are refused."""
        self._paid(shapes, sparsity, evidence)

    def _paid(self, shapes: Weights, sparsity: float, evidence: Evidence) -> tuple[np.ndarray, np.ndarray, float]:
        """The least count of every layer, what an entry of it costs, and the budget."""
        sizes = np.array([shape.size for shape in shapes.values()])
        price = _macs(shapes, evidence) / sizes
        budget = (1 - sparsity) * float(price @ sizes) * (1 + 1e-12)
        least = least_kept(self.min_kept, sizes)
        if price @ least > budget:
            raise ValueError(
                f"min_kept={self.min_kept} takes {price @ least / (price @ sizes):.4f} of the multiply-adds, but this "
                f"sparsity leaves {1 - sparsity:.4f}; lower min_kept or the sparsity."
            )
        return least, price, budget

    def __call__(self, scores: Weights, sparsity: float, evidence: Evidence) -> dict[Path, int]:
        least, price, budget = self._paid(scores, sparsity, evidence)
        ranked = [_per_mac(score, cost) for score, cost in zip(scores.values(), price)]
        kept = lambda k: np.maximum(np.asarray(threshold.kth_largest(ranked, k).kept, np.int64), least)  # noqa: E731
        low, high = 0, sum(score.size for score in scores.values())  # the largest k whose entries can be paid
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if price @ kept(middle) <= budget else (low, middle - 1)
        return dict(zip(scores, kept(low).tolist()))


def _macs(scores: Weights, evidence: Evidence) -> np.ndarray:
    uses = catalog.need("uses", evidence)
    macs = {path: sum(use.macs for use in uses[path]) for path in scores}
    unused = [path for path, n in macs.items() if not n]
    if unused:
        raise ValueError(f"by_macs: the program never contracts {', '.join(unused)} with an activation.")
    return np.array(list(macs.values()), np.float64)


@jax.jit
def _per_mac(score: Array, price: float) -> Array:
    return score / price
