"""By latency: the counts that lose least within a budget of measured time."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from spartax import checks, knapsack
from spartax.prune.alive import alive
from spartax.prune.allocations import _curves
from spartax.records import Allocation, Evidence, Path, Weights

Table = Mapping[Path, Mapping[float, float]]


def by_latency(table: Table, measured: bool = False, buckets: int = 10_000) -> Allocation:
    """Minimises the loss of all layers subject to `sum_l seconds_l(kept_l) <= (1 - sparsity) sum_l seconds_l(all)`.

    Exact by a dynamic programme over time, rounded up to a `buckets`-th of the budget, which is never exceeded.
    `sparsity` is thus the removed fraction of the time in the table. The loss is the sum of the removed scores, or the
    measured error of the network's output. See Frantar and Alistarh, SPDY: Accurate Pruning with Speedup Guarantees,
    arXiv 2201.13096.

    Args:
      table: for every path, seconds by kept entries: a count when an integer, a fraction of the weight when a float in
        [0, 1]. The time of the whole weight must be among them. `measure.layer_seconds` measures one.
      measured: take the error of the logits as the loss, as `rate_distortion` does, which needs an objective.
      buckets: steps of time.

    Raises:
      ValueError: a table without paths, a key that is neither count nor fraction, a time that is not positive; at use,
        paths that differ from those that are pruned, no time for the whole weight, or less time than the fastest takes.
    """
    if not table:
        raise ValueError("table must hold the times of at least one path.")
    for path, row in table.items():
        for kept, seconds in row.items():
            if isinstance(kept, float):
                checks.in_range(f"table[{path!r}]: a kept fraction", kept, 0.0, 1.0)
            else:
                checks.positive_int(f"table[{path!r}]: a kept count", kept, least=0)
            checks.in_range(f"table[{path!r}][{kept}]", seconds, 0.0, np.finfo(float).max)
    checks.positive_int("buckets", buckets)
    return _ByLatency(table, measured, buckets)


class _ByLatency(NamedTuple):
    """The allocation; a value, so that what it needs can be asked for."""

    table: Table
    measured: bool
    buckets: int

    fixes_total = False  # the sparsity is that of time

    @property
    def needs(self) -> frozenset[str]:
        """The network and the dense weights, where errors are measured."""
        return _curves.NEEDS if self.measured else frozenset()

    def foresee(self, shapes: Weights, sparsity: float, evidence: Evidence) -> None:
        """A table that does not fit the weights, or never meets the budget, is refused."""
        del evidence
        self._rows(shapes, sparsity)

    def _rows(self, shapes: Weights, sparsity: float) -> tuple[dict[Path, dict[int, float]], float]:
        """Seconds by kept count, and the budget."""
        for path in {**self.table, **shapes}:
            if path not in self.table or path not in shapes:
                raise ValueError(f"table must have the paths {sorted(shapes)}, no others; {path!r} differs.")
        rows = {path: _by_count(path, self.table[path], shape.size) for path, shape in shapes.items()}
        budget = (1 - sparsity) * sum(next(iter(row.values())) for row in rows.values())
        least = sum(min(row.values()) for row in rows.values())
        if least > budget:
            raise ValueError(
                f"sparsity {sparsity} leaves {budget:.3g} s, but the fastest of the table takes {least:.3g} s."
            )
        return rows, budget

    def __call__(self, scores: Weights, sparsity: float, evidence: Evidence) -> dict[Path, int]:
        (rows, budget), most = self._rows(scores, sparsity), alive(scores)
        rows = {path: _capped(row, most[path]) for path, row in rows.items()}
        counts = {path: list(row) for path, row in rows.items()}
        times = [list(row.values()) for row in rows.values()]
        losses = _curves.distortions(scores, counts, evidence) if self.measured else _curves.removed(scores, counts)
        picked = knapsack.choose([losses[p] for p in scores], times, budget, buckets=self.buckets)
        return {path: counts[path][i] for path, i in zip(scores, picked)}


def _by_count(path: Path, row: Mapping[float, float], size: int) -> dict[int, float]:
    """Seconds by kept count, the whole weight first."""
    found = {round(kept * size) if isinstance(kept, float) else kept: seconds for kept, seconds in row.items()}
    if max(found, default=0) != size:
        raise ValueError(
            f"table[{path!r}] must hold the time of the whole weight of {size} entries; got {sorted(row)}."
        )
    return dict(sorted(found.items(), reverse=True))


def _capped(row: Mapping[int, float], most: int) -> dict[int, float]:
    """Seconds by kept count where only `most` entries are left: the format of a larger count takes them too."""
    found: dict[int, float] = {}
    for kept, seconds in row.items():
        found[min(kept, most)] = min(seconds, found.get(min(kept, most), seconds))
    return found
