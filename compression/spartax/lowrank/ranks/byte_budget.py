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

    Every weight starts at rank 1 (or dense, if that is smaller); then the direction with the most `sigma^2` per byte is
    bought again and again, and a weight whose next direction would make its factors as large as itself becomes dense
    for the difference (of the errors that `compensate` corrects none does: its last direction is the last that leaves
    the factors smaller). The budget is never exceeded. Bytes are those of the leaves that the factorization makes: for
    `lowrank.svd()` of one m x n weight `width (m + n)` a direction, so that `r = floor(ratio m n / (m + n))`.

    Args:
      ratio: share of the dense bytes of the selected weights, in [0, 1].

    Raises:
      ValueError: `ratio` outside [0, 1]; at use, a budget too small for rank 1 everywhere, or a factorization with
        several ranks a weight.
    """
    checks.in_range("ratio", ratio, 0.0, 1.0)

    def choose(matrices: Weights, evidence: Evidence) -> dict[Path, int]:
        one_each(matrices, evidence, "a byte budget")
        fixed, price, dense = prices(matrices, evidence)
        return spend(spectra(matrices), price, dense, ratio, fixed=fixed, instead=not evidence.corrections)

    return choose


def prices(matrices: Weights, evidence: Evidence) -> tuple[dict[Path, float], ...]:
    """Bytes of the factors at any rank, of one direction, and of the dense weight; without evidence those of an SVD."""
    sides = {name: matrix.shape[-2:] for name, matrix in matrices.items()}
    whole = {name: matrix.size * matrix.dtype.itemsize for name, matrix in matrices.items()}
    plain = {name: (0, whole[name] * (m + n) // (m * n), whole[name]) for name, (m, n) in sides.items()}
    told = {name: (evidence.prices or plain)[name] for name in matrices}
    return tuple({name: price[i] for name, price in told.items()} for i in range(3))


def one_each(matrices: Weights, evidence: Evidence, what: str) -> None:
    """Refuse a factorization that asks for several ranks a weight: `fitting` prices none of its matrices."""
    several = [] if evidence.prices is None else sorted(name for name in matrices if name not in evidence.prices)
    if several:
        path = several[0].rpartition("#")[0]
        raise ValueError(f"{path}: {what} prices one matrix a weight; use shared_energy, energy, fixed or vbmf here.")


def spend(
    gains: dict[Path, np.ndarray],
    price: Mapping[Path, float],
    dense: Mapping[Path, float],
    ratio: float,
    *,
    fixed: Mapping[Path, float] | None = None,
    unit: str = "bytes",
    instead: bool = True,
    start: dict[Path, int] | None = None,
) -> dict[Path, int]:
    """Ranks of the weights that are factorized; one left out is dense.

    Args:
      gains: what each direction of each weight gains, in the order they are bought, such as squared singular values.
      price: bytes of one direction of each weight.
      dense: bytes of each dense weight.
      ratio: share of the dense bytes that all take together at most.
      fixed: bytes of the factors of each weight at any rank; none if left out.
      unit: what is counted, as an error calls it.
      instead: whether a weight may become dense, at the price of `dense`, in place of factors; else it has none.
      start: ranks to begin with, within the budget; rank 1 where that is smaller than the dense weight if left out.

    Raises:
      ValueError: the budget is too small for rank 1 everywhere; the nearest that is not is named.
    """
    fixed = fixed or dict.fromkeys(gains, 0)
    ranks = {p: 1 for p in gains if fixed[p] + price[p] < dense[p]} if start is None else dict(start)
    spent = {p: fixed[p] + ranks[p] * price[p] if p in ranks else instead * dense[p] for p in gains}
    left = affordable(ratio, spent, sum(dense.values()), f"rank 1 for every weight takes {{:.4f}} of the dense {unit}")
    queue = [(-gains[p][rank] / price[p], rank, p) for p, rank in ranks.items() if rank < len(gains[p])]
    heapq.heapify(queue)
    while queue:
        _, rank, path = heapq.heappop(queue)
        whole = fixed[path] + (rank + 1) * price[path] >= dense[path]
        extra = dense[path] - fixed[path] - rank * price[path] if whole else price[path]
        if extra > left or (whole and not instead):
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
