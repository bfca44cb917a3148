import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spartax import knapsack


def total(table, chosen):
    return sum(row[i] for row, i in zip(table, chosen))


def brute_force(losses, costs, budget):
    """The least loss of all combinations that the budget allows."""
    every = itertools.product(*(range(len(row)) for row in losses))
    return min((total(losses, c) for c in every if total(costs, c) <= budget), default=None)


def test_rate_distortion_golden():
    """Three layers of 20, 50 and 80 weights, amounts in tenths, 60 survivors: three optima, all of loss 2.52."""
    removed = np.arange(11) / 10
    losses = [(i + 1) * (removed**2 + 0.3 * removed * (i == 1)) + 2 * (removed == 1) for i in range(3)]
    costs = [n * (10 - np.arange(11)) // 10 for n in (20, 50, 80)]
    chosen = knapsack.choose(losses, costs, 60)
    assert chosen in ([5, 5, 7], [6, 6, 6], [7, 4, 7])
    assert total(costs, chosen) <= 60
    assert total(losses, chosen) == pytest.approx(2.52)
    assert brute_force(losses, costs, 60) == pytest.approx(2.52)


def test_ranks_under_an_error_golden():
    """The other way round: least size under an error that is no whole number, rounded up in 10,000 buckets."""
    errors = [[1, 0.7, 0.5, 0.25, 0.1], [8, 5, 3, 1.2, 0.6], [1, 0.9, 0.8, 0.7, 0.1]]
    sizes = [[r * n for r in (2, 3, 4, 6, 8)] for n in (80, 20, 30)]
    chosen = knapsack.choose(sizes, errors, 4.3)
    assert chosen == [0, 3, 0]
    assert total(sizes, chosen) == 340
    assert total(errors, chosen) <= 4.3


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.data())
def test_whole_costs_give_the_optimum_and_others_nearly(data):
    layers = data.draw(st.integers(1, 4))
    number = st.integers(0, 12)
    losses, costs = ([[data.draw(number) for _ in range(3)] for _ in range(layers)] for _ in range(2))
    budget = data.draw(st.integers(0, 30))
    best = brute_force(losses, costs, budget)
    if best is None:
        with pytest.raises(ValueError, match="budget must be at least"):
            knapsack.choose(losses, costs, budget)
        return
    chosen = knapsack.choose(losses, costs, budget)
    assert total(losses, chosen) == best
    assert total(costs, chosen) <= budget
    third = [[c / 3 for c in row] for row in costs]
    rough = knapsack.choose(losses, third, (budget + 0.5) / 3)
    assert total(losses, rough) == best
    few = knapsack.choose(losses, costs, budget, buckets=7)
    assert total(costs, few) <= budget
    assert total(losses, few) >= best


def test_spending_greedily_is_not_optimal():
    """The best gain per cost first (6 for 3) leaves 2 unspent; the optimum takes the two that fill the budget."""
    losses, costs = [[6, 0], [4.5, 0], [4.5, 0]], [[0, 3], [0, 2.5], [0, 2.5]]
    assert knapsack.choose(losses, costs, 5.0) == [0, 1, 1]


def test_equal_layers_share_equally():
    losses, costs = [[9, 4, 1, 0]] * 4, [[0, 1, 2, 3]] * 4
    assert knapsack.choose(losses, costs, 8) == [2] * 4
    assert knapsack.choose(losses, costs, 10**9) == [3] * 4


@pytest.mark.parametrize(
    ("losses", "costs", "budget", "message"),
    [
        ([[1.0, 2.0]], [[1.0]], 3, "same options"),
        ([], [], 3, "at least one layer"),
        ([[1.0, np.nan]], [[1.0, 2.0]], 3, "losses must hold a list of finite"),
        ([[1.0, 2.0]], [[1.0, -2.0]], 3, "costs must not be negative"),
        ([[1.0, 2.0], [1.0]], [[4.0, 5.0], [2.0]], 5, "budget must be at least 6"),
    ],
)
def test_bad_tables(losses, costs, budget, message):
    with pytest.raises(ValueError, match=message):
        knapsack.choose(losses, costs, budget)
