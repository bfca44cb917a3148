"""Exact projections under box constraints, without sorting.

Each one solves a scalar equation per row: a monotone, piecewise linear function of a multiplier has to reach a value.
A pass over the row costs little and two to six of them are enough, while one `sort` of 3072 columns costs as much as
several hundred passes on CPU.
"""

from typing import Any

import jax.numpy as jnp
from jax import lax

from spartax import checks
from spartax.records import Array

NORMS = ("linf", "l2", "l1")
_CLOSE = 2.0**-19  # relative; the rounding of a long float32 sum
_NARROW = 2.0**-17  # relative; what filling neighboring weights alike may add to a length
_PASSES = 64  # far above what any row needs; bounds the loops when rounding keeps two neighbors apart


def l1_ball_box(v: Array, x0: Array, eps: Array | float) -> Array:
    """Project the perturbation `v` on the part of the L1 ball that keeps `x0 + v` in [0, 1].

    `argmin_u |u - v|_2` subject to `|u|_1 <= eps` and `0 <= x0 + u <= 1`: with `m` the part of `|v|` that fits into the
    box, `u = sign(v) clip(|v| - a, 0, m)` and the least `a >= 0` for which the entries add up to at most `eps`.
    APGD for L1 (Croce and Hein, "Mind the box", arXiv 2103.01208).

    Args:
      v: perturbations `[B, ...]`.
      x0: clean images `[B, ...]` in [0, 1].
      eps: radius, a number or `[B]`.

    Returns:
      The projected perturbations, shape of `v`.
    """
    shape, v, x0 = v.shape, _wide(v), _wide(x0)
    size = jnp.abs(v)
    fits = jnp.minimum(size, jnp.where(v > 0, 1 - x0, x0))
    radius = jnp.broadcast_to(jnp.asarray(eps, v.dtype), shape[:1])
    kept = jnp.clip(size - _over(_shrinkage(size, fits, radius), v), 0, fits)
    shrink = jnp.minimum(1, radius / jnp.maximum(_total(kept), jnp.finfo(v.dtype).tiny))  # what rounding left too much
    return (jnp.sign(v) * kept * _over(shrink, v)).reshape(shape)


def hyperplane_box(v: Array, w: Array, b: Array, norm: str) -> Array:
    """The shortest displacement that takes `v` to the hyperplane `{u: <w, u> = b}` without leaving [0, 1].

    `argmin_d |d|_p` subject to `<w, v + d> = b` and `0 <= v + d <= 1`. Where no point of the box lies on the
    plane, every coordinate goes to the side of the box nearest to the plane. FAB (Croce and Hein, arXiv 1907.02044).

    Args:
      v: points `[B, ...]` in [0, 1].
      w: normals `[B, ...]`.
      b: offsets `[B]`.
      norm: `"linf"`, `"l2"` or `"l1"`.

    Returns:
      Displacements, shape of `v`.

    Raises:
      ValueError: an unknown `norm`.
    """
    return move_to_plane(v, w, _total(_wide(w * v)) - b, norm)


def move_to_plane(v: Array, w: Array, excess: Array, norm: str) -> Array:
    """`hyperplane_box` for a known `excess = <w, v> - b`, `[B]`, which may be far smaller than `<w, v>` and `b` are."""
    checks.one_of("norm", norm, NORMS)
    shape, v, w = v.shape, _wide(v), _wide(w)
    # Scaled by its largest entry, a gradient of 1e-30 works as well as one of 1.
    scale = jnp.maximum(_largest(jnp.abs(w)), jnp.finfo(v.dtype).tiny)
    weight, need = jnp.abs(w) / _over(scale, w), jnp.abs(excess) / scale
    down = (w > 0) == _over(excess >= 0, w)
    cap = jnp.where(w == 0, 0, jnp.where(down, v, 1 - v))
    amount = _largest_first(weight, cap, need) if norm == "l1" else _in_step(weight, cap, need, by_weight=norm == "l2")
    return jnp.where(down, -amount, amount).reshape(shape)


def _in_step(weight: Array, cap: Array, need: Array, *, by_weight: bool) -> Array:
    """`min(t g, cap)` with `sum weight min(t g, cap) = need`; `g` is the weight (L2) or one (Linf).

    Secant method from the left: the sum is concave in `t`, so that no step passes the root, and the step is exact once
    both points lie on the root's linear piece. (Newton's slope would cost a second sum, slower than two more steps.)
    """
    speed = weight if by_weight else jnp.ones_like(weight)
    feasible = need < _total(weight * cap)

    def step(state):
        (t, last, last_total), _, passes = state
        total = _total(weight * jnp.minimum(_over(t, cap) * speed, cap))
        slope = (total - last_total) / jnp.where(t > last, t - last, 1)
        new = t + (need - total) / jnp.where(slope > 0, slope, jnp.inf)
        moving = feasible & (new > t * (1 + _CLOSE))
        pairs = (new, t), (t, last), (total, last_total)
        return tuple(jnp.where(moving, *pair) for pair in pairs), moving, passes + 1

    zero, slope = jnp.zeros_like(need), _total(jnp.where(cap > 0, weight * speed, 0))
    t = jnp.where(feasible, need / slope, 0)
    (t, *_), *_ = lax.while_loop(_unfinished, step, ((t, zero, zero), feasible & (t > 0), 0))
    return jnp.where(_over(feasible, cap), jnp.minimum(_over(t, cap) * speed, cap), cap)


def _largest_first(weight: Array, cap: Array, need: Array) -> Array:
    """Fill entries to `cap` in decreasing order of `weight` until `sum weight * amount = need`; the last one in part.

    Bisection on the weight of that last entry. Entries that remain between the two ends are filled in equal part; it
    ends when that hardly lengthens the result.
    """
    worth = weight * cap
    reach = _total(worth)
    feasible = need < reach

    def step(state):
        (low, low_sum, high, high_sum), _, passes = state
        at = (low + high) / 2
        total = _total(jnp.where(weight >= _over(at, worth), worth, 0))
        enough = total >= need
        low, low_sum = jnp.where(enough, at, low), jnp.where(enough, total, low_sum)
        high, high_sum = jnp.where(enough, high, at), jnp.where(enough, high_sum, total)
        moving = feasible & (jnp.minimum(low_sum - high_sum, need) * (high - low) > _NARROW * need * low)
        return (low, low_sum, high, high_sum), moving, passes + 1

    zero = jnp.zeros_like(need)
    ends = zero, reach, jnp.nextafter(_largest(weight), jnp.inf), zero
    (low, low_sum, high, high_sum), *_ = lax.while_loop(_unfinished, step, (ends, feasible, 0))
    between = low_sum - high_sum
    share = jnp.clip((need - high_sum) / jnp.where(between > 0, between, 1), 0, 1)
    high, low, share, feasible = (_over(value, cap) for value in (high, low, share, feasible))
    part = jnp.where(weight >= high, 1, jnp.where(weight >= low, share, 0))
    return jnp.where(feasible, part * cap, cap)


def _shrinkage(size: Array, fits: Array, radius: Array) -> Array:
    """The least `a >= 0` with `sum clip(size - a, 0, fits) <= radius`: regula falsi, Illinois variant."""

    def step(state):
        (low, low_miss, high, high_miss, at, side), moving, passes = state
        at = jnp.where(moving, low + (high - low) * low_miss / (low_miss - high_miss), at)
        miss = _total(jnp.clip(size - _over(at, size), 0, fits)) - radius
        below = miss > 0
        # An end that stays a second time counts half, or one-sided steps would converge slowly.
        high_miss = jnp.where(below, jnp.where(side > 0, high_miss / 2, high_miss), miss)
        low_miss = jnp.where(below, miss, jnp.where(side < 0, low_miss / 2, low_miss))
        low, high = jnp.where(below, at, low), jnp.where(below, high, at)
        moving = moving & (jnp.abs(miss) > _CLOSE * radius) & (high - low > _CLOSE * high)
        return (low, low_miss, high, high_miss, at, jnp.where(below, 1, -1)), moving, passes + 1

    full = _total(fits)
    zero = jnp.zeros_like(radius)
    start = zero, full - radius, _largest(size), -radius, zero, jnp.zeros(radius.shape, int)
    return lax.while_loop(_unfinished, step, (start, full > radius, 0))[0][4]


def _unfinished(state: tuple[Any, Array, Array]) -> Array:
    _, moving, passes = state
    return jnp.any(moving) & (passes < _PASSES)


def _wide(values: Array) -> Array:
    """Images `[B, H, W, C]` as `[B, H, W * C]`: sums whose last axis is three long are several times slower on CPU."""
    return values.reshape(*values.shape[:-2], -1) if values.ndim > 3 else values


def _total(values: Array) -> Array:
    """Sum of every example."""
    return jnp.sum(values, tuple(range(1, values.ndim)))


def _largest(values: Array) -> Array:
    return jnp.max(values, tuple(range(1, values.ndim)))


def _over(values: Array, like: Array) -> Array:
    """One value per example, with the axes of `like`."""
    return values.reshape(-1, *(1,) * (like.ndim - 1))
