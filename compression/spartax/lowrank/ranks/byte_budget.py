"""Byte budget: all layers share one number of bytes, spent where it retains most."""

import heapq
import math
from collections.abc import Mapping

import numpy as np

from spartax import checks
from spartax.lowrank.matrices import spectra
from spartax.records import Evidence, Path, Ranks, Weights


def byte_budget(ratio: float = 0.5) -> Ranks:
    """Maximises the retained `sum sigma_i^2` of all weights together under `ratio` times their dense bytes.

    Every weight starts at rank 1 (or dense, if that is smaller); then the direction with the most `sigma^2` per byte,
    `sigma^2 / (width (m + n))`, is bought again and again, and a weight whose next direction would make its factors as
    large as itself becomes dense for the difference. The budget is never exceeded. For one m x n weight this is
    `r = floor(ratio m n / (m + n))`.

    Args:
      ratio: share of the dense bytes of the selected weights, in [0, 1].

    Raises:
      ValueError: `ratio` outside [0, 1]; at use, a budget too small for rank 1 everywhere, or a factorization with
        several ranks a weight.
    """
    checks.in_range("ratio", ratio, 0.0, 1.0)

    def choose(matrices: Weights, evidence: Evidence) -> dict[Path, int]:
        del evidence
        one_each(matrices, "a byte budget")
        dense = {p: m.size * m.dtype.itemsize for p, m in matrices.items()}
        price = {p: dense[p] * sum(m.shape[-2:]) // (m.shape[-2] * m.shape[-1]) for p, m in matrices.items()}
        return spend(spectra(matrices), price, dense, ratio)

    return choose


def one_each(matrices: Weights, what: str) -> None:
    """Refuse a factorization that asks for several ranks a weight."""
    several = sorted({name.split("#")[0] for name in matrices if "#" in name})
    if several:
        raise ValueError(
            f"{several[0]}: {what} prices one matrix a weight; use shared_energy, energy, fixed or vbmf here."
        )


def spend(
    gains: dict[Path, np.ndarray],
    price: dict[Path, int],
    dense: dict[Path, int],
    ratio: float,
    *,
    unit: str = "bytes",
    start: dict[Path, int] | None = None,
) -> dict[Path, int]:
    """Ranks of the weights that are factorized; one left out is dense.

    Args:
      gains: what each direction of each weight gains, in the order they are bought, such as squared singular values.
      price: bytes of one direction of each weight.
      dense: bytes of each dense weight.
      ratio: share of the dense bytes that all take together at most.
      unit: what is counted, as an error calls it.
      start: ranks to begin with, within the budget; rank 1 where that is smaller than the dense weight if left out.

    Raises:
      ValueError: the budget is too small for rank 1 everywhere; the nearest that is not is named.
    """
    ranks = {p: 1 for p in gains if price[p] < dense[p]} if start is None else dict(start)
    spent = {p: ranks[p] * price[p] if p in ranks else dense[p] for p in gains}
    left = affordable(ratio, spent, sum(dense.values()), f"rank 1 for every weight takes {{:.4f}} of the dense {unit}")
    queue = [(-gains[path][rank] / price[path], rank, path) for path, rank in ranks.items()]
    heapq.heapify(queue)
    while queue:
        _, rank, path = heapq.heappop(queue)
        whole = (rank + 1) * price[path] >= dense[path]
        extra = dense[path] - rank * price[path] if whole else price[path]
        if extra > left:
            continue  # what is left only shrinks, so this weight is done
        left -= extra
        if whole:
            del ranks[path]
            continue
        ranks[path] = rank + 1
        if rank + 1 < len(gains[path]):
            heapq.heappush(queue, (-gains[path][rank + 1] / price[path], rank + 1, path))
    return ranks


def affordable(ratio: float, least: Mapping[Path, float], total: float, takes: str) -> float:
    """What `ratio * total` leaves when the least of every weight is paid.

    Args:
      ratio: of the budget.
      least: what every weight takes at least.
      total: what they take dense.
      takes: says so in an error, with a place for the ratio that would do.

    Raises:
      ValueError: nothing is left, with the nearest budget that can be met and the weight that takes most of it.
    """
    left = int(ratio * total + 1e-6) - sum(least.values())
    if left < 0:
        nearest = math.ceil(1e4 * sum(least.values()) / total - 1e-6) / 1e4
        most = max(least, key=lambda path: least[path])
        raise ValueError(
            f"ratio is too small: {takes.format(nearest)}, the nearest budget that can be met; {most} takes most of it."
        )
    return left
