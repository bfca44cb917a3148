"""Allocations that never look at the scores."""

from typing import NamedTuple

from spartax.records import Allocation, Evidence, Path, Weights


class ByShape(NamedTuple):
    """The allocation; a value, so that its counts can be asked for before there are scores."""

    allocate: Allocation

    def __call__(self, scores: Weights, sparsity: float, evidence: Evidence) -> dict[Path, int]:
        return self.allocate(scores, sparsity, evidence)

    def foresee(self, shapes: Weights, sparsity: float, evidence: Evidence) -> dict[Path, int]:
        """The counts, which follow from the shapes."""
        return self.allocate(shapes, sparsity, evidence)
