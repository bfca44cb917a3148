"""Uniform: every weight keeps the same fraction."""

from spartax.prune.allocations._by_shape import ByShape
from spartax.records import Allocation, Evidence, Path, Weights


def uniform() -> Allocation:
    """`keep_l = round((1 - sparsity) n_l)` for every weight on its own, the first and the last layer included."""
    return ByShape(_allocate)


def _allocate(scores: Weights, sparsity: float, evidence: Evidence) -> dict[Path, int]:
    del evidence
    return {path: round((1 - sparsity) * score.size) for path, score in scores.items()}
