"""The multiple-choice knapsack: one option for every layer, least loss together, within one budget.

Sparsities per layer, ranks and bit widths are all chosen this way. Runs on the host; the tables are small.
"""

from collections.abc import Sequence

import numpy as np

from spartax import checks


def choose(
    losses: Sequence[Sequence[float] | np.ndarray],
    costs: Sequence[Sequence[float] | np.ndarray],
    budget: float,
    *,
    buckets: int = 10_000,
) -> list[int]:
    """The index of one option for every layer: `min sum_l losses[l][i_l]` subject to `sum_l costs[l][i_l] <= budget`.

    A dynamic programme over the cost, `best_l[c] = min_i best_(l-1)[c - costs[l][i]] + losses[l][i]`. What every layer
    must pay in any case is set aside first. When what is then left to spend is a whole number of at most `buckets`, and
    so is every extra cost, the result is the exact optimum; else extra costs are rounded up to a `buckets`-th of it, so
    that the budget is never exceeded. Among equal losses the first option of the last layers is taken.

    Args:
      losses: for every layer, the loss of each of its options.
      costs: the same for their costs, not negative.
      budget: what all layers may cost together.
      buckets: size of the table of costs.

    Returns:
      The chosen option of every layer.

    Raises:
      ValueError: tables that do not fit each other or are not finite, negative costs, or a budget below the sum of the
        cheapest options.
    """
    checks.positive_int("buckets", buckets)
    gains, prices = ([np.asarray(row, np.float64) for row in table] for table in (losses, costs))
    _check(gains, prices)
    least = [row.min() for row in prices]
    left = budget - sum(least)
    if left < -1e-9 * max(abs(budget), 1.0):
        raise ValueError(f"budget must be at least {sum(least):g}, the sum of the cheapest options; got {budget:g}.")
    best = [int(np.lexsort((p, g))[0]) for g, p in zip(gains, prices)]
    if sum(p[i] for p, i in zip(prices, best)) <= budget:
        return best
    extra, size = _whole([row - low for row, low in zip(prices, least)], max(left, 0.0), buckets)
    return _solve(gains, extra, size)


def _check(losses: list[np.ndarray], costs: list[np.ndarray]) -> None:
    if not losses or [row.shape for row in losses] != [row.shape for row in costs]:
        raise ValueError("losses and costs must hold the same options of at least one layer.")
    for name, table in (("losses", losses), ("costs", costs)):
        for row in table:
            if row.ndim != 1 or not row.size or not np.isfinite(row).all():
                raise ValueError(f"{name} must hold a list of finite numbers for every layer; got {row}.")
            if name == "costs" and row.min() < 0:
                raise ValueError(f"costs must not be negative; got {row.min():g}.")


def _whole(extra: list[np.ndarray], left: float, buckets: int) -> tuple[list[np.ndarray], int]:
    """Extra costs in whole buckets, rounded up, and the number of buckets there are to spend."""
    exact = left <= buckets and all((row == np.round(row)).all() for row in extra)
    unit = 1.0 if exact else left / buckets
    if unit == 0.0:
        return [np.where(row > 0, 1, 0) for row in extra], 0
    # A cost that is a whole number of units but for rounding stays that number.
    up = [np.ceil(np.minimum(row / unit, buckets + 1.0) * (1 - 1e-12)).astype(np.int64) for row in extra]
    return up, int(left) if exact else buckets


def _solve(losses: list[np.ndarray], costs: list[np.ndarray], size: int) -> list[int]:
    best = np.zeros(size + 1)  # least loss of the layers so far, for every cost they may have at most
    taken = []
    for loss, cost in zip(losses, costs):
        table = np.full((len(loss), size + 1), np.inf)
        for option, (value, price) in enumerate(zip(loss, cost)):
            if price <= size:
                table[option, price:] = best[: size + 1 - price] + value
        taken.append(np.argmin(table, axis=0))
        best = table.min(axis=0)
    chosen, at = [], size
    for option, cost in zip(reversed(taken), reversed(costs)):
        chosen.append(int(option[at]))
        at -= int(cost[chosen[-1]])
    return chosen[::-1]
