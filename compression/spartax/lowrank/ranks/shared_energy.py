"""Shared energy: one share of the squared singular values for every weight, the largest that fits a number of bytes."""

import numpy as np

from spartax import checks
from spartax.lowrank.matrices import spectra
from spartax.lowrank.ranks.byte_budget import affordable, prices
from spartax.lowrank.ranks.energy import smallest_rank
from spartax.records import Evidence, Path, Ranks, Weights

STEPS = 30  # of the bisection
LEAST = "rank 1 for every weight takes {:.4f} of the dense bytes"


def shared_energy(ratio: float = 0.5) -> Ranks:
    """`lowrank.energy(kept)` for the largest `kept` at which all weights take `ratio` of their dense bytes at most.

    It prices one matrix by the leaf that its factorization makes, for `lowrank.svd()` at rank r `r (m + n)` numbers,
    and the two unfoldings of `lowrank.tucker()` with ranks p and q, of a kernel with S taps, at `I p + S p q + q O`; a
    weight never costs more than it does dense, and corrections of `compensate` stay smaller than that. Unlike
    `lowrank.byte_budget` it keeps the same share of every weight, so that none is given up for others.

    Args:
      ratio: share of the dense bytes of the selected weights, in [0, 1].

    Raises:
      ValueError: `ratio` outside [0, 1]; at use, a budget too small for rank 1 everywhere.
    """
    checks.in_range("ratio", ratio, 0.0, 1.0)

    def choose(matrices: Weights, evidence: Evidence) -> dict[Path, int]:
        squares, shapes = spectra(matrices), _by_weight(matrices, evidence)
        fixed, price, _ = prices({p: matrices[p] for p, parts in shapes.items() if len(parts) == 1}, evidence)
        dense = {path: _dense(parts) for path, parts in shapes.items()}
        most = {p: _largest(fixed[p], price[p], dense[p]) for p in price if evidence.corrections}
        one = lambda p, ranks: fixed[p] + ranks[p] * price[p] if p in price else _factors(shapes[p], ranks)  # noqa: E731
        cost = lambda ranks: {p: min(dense[p], one(p, ranks)) for p in shapes}  # noqa: E731
        least = dict.fromkeys(matrices, 1)
        spare = affordable(ratio, cost(least), sum(dense.values()), LEAST)
        budget, low, high, best = sum(cost(least).values()) + spare, 0.0, 1.0, least
        for _ in range(STEPS):
            kept = (low + high) / 2
            ranks = {
                name: min(smallest_rank(squares[name], kept), most.get(name, len(squares[name]))) for name in squares
            }
            fits = sum(cost(ranks).values()) <= budget
            low, high, best = (kept, high, ranks) if fits else (low, kept, best)
        return best

    return choose


def _largest(fixed: float, direction: float, dense: float) -> int:
    """The largest rank whose factors are smaller than the dense weight, 1 if none is."""
    return max(1, int(-(-(dense - fixed) // direction)) - 1)


Parts = dict[str, tuple[int, int, int]]  # name of each matrix -> rows, columns, bytes of a number in all layers


def _by_weight(matrices: Weights, evidence: Evidence) -> dict[Path, Parts]:
    """The matrices of each weight; those that `fitting` prices are alone, whatever their path holds."""
    found: dict[Path, Parts] = {}
    for name, matrix in matrices.items():
        rows, columns = matrix.shape[-2:]
        one = matrix.dtype.itemsize * int(np.prod(matrix.shape[:-2]))
        alone = evidence.prices is None or name in evidence.prices
        found.setdefault(name if alone else name.rpartition("#")[0], {})[name] = (rows, columns, one)
    return found


def _dense(parts: Parts) -> int:
    rows, columns, one = next(iter(parts.values()))
    return one * rows * columns


def _factors(parts: Parts, ranks: dict[Path, int]) -> int:
    """Bytes of Tucker-2."""
    (first, (inputs, columns, one)), (last, (outputs, _, _)) = parts.items()
    p, q = ranks[first], ranks[last]
    return one * (inputs * p + columns // outputs * p * q + q * outputs)
