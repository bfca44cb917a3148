"""Observers against slow searches over the same histogram."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spartax import catalog, quantize
from spartax.kernels.uniform import Uniform
from spartax.quantize.observers._observer import Observer, Seen

GRIDS = [Uniform(4), Uniform(3, False)]


@functools.cache
def fitted(name, grid):
    return jax.jit(lambda given: catalog.load(quantize.observers, name)().fit(given, grid))


def seen(values, bins=64):
    low, high = min(values.min(), 0), max(values.max(), 0)
    top = max(-low, high)
    counts = np.histogram(values, bins, (-top, top))[0]
    return Seen(jnp.float32(low), jnp.float32(high), jnp.asarray(counts, jnp.float32))


def tails(one_sided=False):
    """A bell with a few far values."""
    values = np.random.default_rng(0).normal(size=4000)
    values[:6] *= 8
    return np.abs(values) if one_sided else values


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", catalog.names(quantize.observers))
def test_every_observer_stays_inside_what_was_seen_and_holds_zero(name, grid):
    observer = catalog.load(quantize.observers, name)()
    assert isinstance(observer, Observer)
    assert observer.needs <= {"ranges", "histograms"}
    for values in (tails(), tails(True), -tails(True)):
        given = seen(values)
        low, high = fitted(name, grid)(given)
        edge = float(max(-given.low, given.high)) * (1 + 1e-6)
        assert -edge <= low <= 0 <= high <= edge
        assert max(-low, high) > 0


def test_min_max_is_the_range():
    assert quantize.min_max().fit(Seen(jnp.float32(-2), jnp.float32(3), None), GRIDS[0]) == (-2, 3)


def test_quantile_by_hand():
    """Bins of one unit from -4 to 4; 100 values."""
    given = Seen(jnp.float32(-4), jnp.float32(4), jnp.array([1.0, 0, 9, 40, 30, 15, 4, 1]))
    assert quantize.quantile(0.98).fit(given, GRIDS[0]) == (-3, 3)  # |x|: 70, 24, 4, 2
    assert quantize.quantile(0.94).fit(given, GRIDS[0]) == (-2, 2)
    assert quantize.quantile(0.95).fit(given, GRIDS[1]) == (-2, 2)
    assert quantize.quantile(0.99).fit(given, GRIDS[1]) == (-2, 3)
    assert quantize.quantile(1).fit(given, GRIDS[1]) == (-4, 4)
    with pytest.raises(ValueError, match=r"fraction must be in \[0.5, 1\]; got 99"):
        quantize.quantile(99)


def levels(grid, low, high, x):
    """Codes of numbers, and the numbers they stand for."""
    least, most = grid.codes
    scale = max(-low, high) / most if grid.symmetric else (high - low) / (most - least)
    zero = 0 if grid.symmetric else least + np.round(-low / scale)
    codes = np.clip(np.round(x / scale) + zero, least, most)
    return codes, (codes - zero) * scale


def divergence(grid, low, high, counts, middles):
    if grid.symmetric:
        low, high = -max(-low, high), max(-low, high)
    inside = [i for i, m in enumerate(middles) if low <= m <= high]
    if len(inside) < 2**grid.bits:
        return np.inf
    p = np.array([counts[i] for i in inside], float)
    p[0] += counts[: inside[0]].sum()
    p[-1] += counts[inside[-1] + 1 :].sum()
    codes = levels(grid, low, high, middles[inside])[0]
    q = np.zeros(len(inside))
    for code in set(codes):
        own = [j for j in range(len(inside)) if codes[j] == code and p[j] > 0]
        if own:
            q[own] = sum(counts[inside[j]] for j in range(len(inside)) if codes[j] == code) / len(own)
    used = p > 0
    p, q = p[used] / p.sum(), q[used] / q.sum()
    p, q = (0.9999 * v + 0.0001 / used.sum() for v in (p, q))
    return np.sum(p * np.log(p / q))


def squares(grid, low, high, counts, middles):
    return np.sum(counts * (middles - levels(grid, low, high, middles)[1]) ** 2)


@pytest.mark.parametrize("one_sided", [False, True])
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(("name", "cost"), [("kl", divergence), ("squared_error", squares)])
def test_the_best_share_is_that_of_a_slow_search(name, cost, grid, one_sided):
    given = seen(tails(one_sided))
    low, high, counts = float(given.low), float(given.high), np.asarray(given.counts)
    top = max(-low, high)
    middles = (np.arange(64) + 0.5) * top / 32 - top
    if name == "kl":
        counts = np.concatenate([counts[:32], counts[33:34], counts[33:]])
    costs = {i: cost(grid, low * i / 100, high * i / 100, counts, middles) for i in range(100, 1, -1)}
    ours = fitted(name, grid)(given)
    if name == "kl":  # zeros do not count
        spike = given._replace(counts=given.counts.at[32].add(1e5))
        np.testing.assert_array_equal(fitted(name, grid)(spike), ours)
    best = min(costs, key=costs.get)
    chosen = round(100 * float(ours[1]) / high)
    assert chosen < 90  # the far values are given up
    assert costs[chosen] <= costs[best] * 1.001 + 1e-9
