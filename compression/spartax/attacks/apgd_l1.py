"""How APGD moves for l1: sparse steps, with the step length tied to how many pixels have changed."""

import math

import jax.numpy as jnp
import numpy as np
from jax import lax

from spartax.attacks import noise, threats
from spartax.attacks.apgd_rules import Rule, State, back_to_best, rows
from spartax.attacks.projections import l1_ball_box
from spartax.records import Array


def sparse(eps: float, steps: int, *, large_eps: bool, given_start: bool) -> Rule:
    """Steps along the signs of the largest gradient entries, as many as two thirds of what the best point changed.

    No momentum. At a check the step goes back to `eps` (and the point to the best one) where the number of changed
    entries fell below 95 %, else it is divided by 1.5, not below `eps / 10`. With `large_eps` three runs of 30, 30 and
    40 % of the steps follow each other at radius 3, 2 and 1 eps. See Croce and Hein, "Mind the box", arXiv 2103.01208.
    """
    lengths = stages(steps) if large_eps else [steps]
    windows = np.concatenate([equal_windows(length) for length in lengths])
    fresh = np.concatenate([np.arange(length + 1) == 0 for length in lengths])
    radii = np.repeat(eps * np.arange(len(lengths), 0, -1.0), [length + 1 for length in lengths]).astype(np.float32)
    counted = large_eps or given_start  # the first fraction is then counted at the starting point, else it is 0.2

    def radius(state: State) -> Array:
        return jnp.asarray(radii)[state.number]

    def enter(state: State) -> State:
        begins, size = jnp.asarray(fresh)[state.number], math.prod(state.x.shape[1:])
        if large_eps:
            best = project(state.x_best, state.x0, radius(state))
            state = state._replace(x=rows(begins & (state.number > 0), best, state.x))
        support = changed(state.x, state.x0)
        return state._replace(
            support=jnp.where(begins, support if counted else float(size), state.support),
            part=jnp.where(begins, support / size / 1.5 if counted else 0.2, state.part),
            step_size=jnp.where(begins, radius(state), state.step_size),
        )

    def move(state: State, gradient: Array) -> Array:
        direction = largest(gradient, state.part)
        length = threats.per_example(state.step_size / (threats.lengths(direction, "l1") + 1e-10), gradient)
        return project(state.x + length * direction, state.x0, radius(state))

    def start(keys: Array, x0: Array) -> Array:
        return project(x0 + noise.normal(keys, x0), x0, float(radii[0]))

    check = lambda state, gradient, window: back_where_sparser(state, gradient, window > 0, radius(state))  # noqa: E731
    return Rule(windows, fresh, eps, start, enter, check, move)


def back_where_sparser(state: State, gradient: Array, due: Array, most: Array) -> tuple[State, Array]:
    """The check of the rows that are due; `most` is their longest step."""
    size = math.prod(gradient.shape[1:])
    support = changed(state.x_best, state.x0)
    sparser = support < 0.95 * state.support
    state, gradient = back_to_best(state, gradient, due & sparser)
    step_size = jnp.clip(jnp.where(sparser, most, state.step_size / 1.5), most / 10, most)
    state = state._replace(
        part=jnp.where(due, support / size / 1.5, state.part),
        step_size=jnp.where(due, step_size, state.step_size),
        support=jnp.where(due, support, state.support),
    )
    return state, gradient


def stages(steps: int) -> list[int]:
    """Lengths of the three runs of the schedule for large radii."""
    first = -(-3 * steps // 10)
    return [first, first, steps - 2 * first]


def equal_windows(steps: int) -> np.ndarray:
    """Windows of 0.04 of the steps, int32 [looks]."""
    table, window = np.zeros(steps + 1, np.int32), max(int(0.04 * steps), 1)
    table[window::window] = window
    return table


def project(x: Array, x0: Array, radius: Array | float) -> Array:
    """The nearest image in the l1 ball (one radius, or one per example) and the box."""
    return jnp.clip(x0 + l1_ball_box(x - x0, x0, radius), 0.0, 1.0)


def changed(x: Array, x0: Array) -> Array:
    """How many entries of every example differ, float32 [B]."""
    return jnp.sum((x != x0).astype(jnp.float32).reshape(x.shape[0], -1), axis=1)


def largest(gradient: Array, part: Array) -> Array:
    """Signs of the `part[i]` fraction of largest entries of example `i` (at least one), 0 elsewhere."""
    size = math.prod(gradient.shape[1:])
    rank = jnp.clip(jnp.floor((1 - part) * size), 0, size - 1).astype(jnp.int32)
    least = threats.per_example(least_above(jnp.abs(gradient), rank), gradient)
    return jnp.where(jnp.abs(gradient) >= least, jnp.sign(gradient), 0.0)


def least_above(values: Array, rank: Array) -> Array:
    """A number that the `rank[i]`-th smallest entry (from 0) of example `i` reaches, and no smaller entry does; [B].

    No entry is negative, so that floats are ordered like their bits. These are searched by interpolation, every third
    time by halving: ten counts or so, each far cheaper than a sort.
    """
    bits = lax.bitcast_convert_type(values.reshape(values.shape[0], -1), jnp.int32)

    def unfinished(state: tuple[Array, ...]) -> Array:
        low, below_low, high, _, _ = state
        return jnp.any((below_low != rank) & (high - low > 1))

    def step(state: tuple[Array, ...]) -> tuple[Array, ...]:
        low, below_low, high, below_high, number = state
        share = (rank + 0.5 - below_low) / (below_high - below_low)
        width = (high - low).astype(jnp.float32) * jnp.where(number % 3 == 2, 0.5, share)
        at = jnp.clip(low + width.astype(jnp.int32), low + 1, high - 1)
        below = jnp.sum((bits < at[:, None]).astype(jnp.float32), axis=1)
        up, down = (below <= rank) & (below_low != rank), below > rank
        low, below_low = jnp.where(up, at, low), jnp.where(up, below, below_low)
        return low, below_low, jnp.where(down, at, high), jnp.where(down, below, below_high), number + 1

    zero = jnp.zeros_like(rank, jnp.float32)
    start = jnp.zeros_like(rank), zero, jnp.max(bits, axis=1) + 1, zero + bits.shape[1], jnp.zeros((), jnp.int32)
    return lax.bitcast_convert_type(lax.while_loop(unfinished, step, start)[0], jnp.float32)
