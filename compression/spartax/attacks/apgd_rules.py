"""How APGD moves and when it halves its step (linf and l2; `apgd_l1` has the rule for l1).

Iterations are numbered from 0, the look at the starting point, so a run of `steps` has `steps + 1` looks. All tables
are static and indexed by the iteration of each row.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from spartax.attacks import threats
from spartax.records import Array

State = Any  # apgd.State
MOMENTUM = 0.75


class Rule(NamedTuple):
    """The part of APGD that depends on the norm.

    Attributes:
      windows: int32 [looks], length of the window that ends with this look, 0 where none ends.
      fresh: bool [looks], this look begins a run (the l1 schedule of large radii has three).
      step_size: the first step.
      start: `(keys, x0) -> x`.
      enter: `state -> state`, at the beginning of an iteration.
      check: `(state, gradient, window [B]) -> (state, gradient)`, halves steps and goes back to the best point.
      move: `(state, gradient) -> x`.
    """

    windows: np.ndarray
    fresh: np.ndarray
    step_size: float
    start: Callable[[Array, Array], Array]
    enter: Callable[[State], State]
    check: Callable[[State, Array, Array], tuple[State, Array]]
    move: Callable[[State, Array], Array]


def shrinking_windows(steps: int) -> np.ndarray:
    """Windows of 0.22, 0.19, 0.16, ... of the steps, not below 0.06: for 100 they end after 22, 41, 57, 70, ..."""
    table = np.zeros(steps + 1, np.int32)
    window, least, less = max(int(0.22 * steps), 1), max(int(0.06 * steps), 1), max(int(0.03 * steps), 1)
    end = window
    while end <= steps:
        table[end] = window
        window = max(window - less, least)
        end += window
    return table


def rows(mask: Array, yes: Array, no: Array) -> Array:
    """`where` by example."""
    return jnp.where(threats.per_example(mask, no), yes, no)


def back_to_best(state: State, gradient: Array, jump: Array) -> tuple[State, Array]:
    """The rows of `jump` continue from their best point, with the gradient already known there."""
    return state._replace(x=rows(jump, state.x_best, state.x)), rows(jump, state.gradient_best, gradient)


def halving(norm: str, eps: float, steps: int, rho: float) -> Rule:
    """Momentum steps of length `s`, first `2 eps`; halved when progress in the window was too small.

    `u = P(x + s d)`, `x <- P(x + a (u - x) + (1 - a) (x - x_before))` with `a = 0.75`, 1 in the first iteration.
    Halved when the loss rose in at most `rho` of the window's steps, or when neither the step nor the best loss has
    changed since the last check.
    """
    ball = threats.threat(norm, eps)

    def check(state: State, gradient: Array, window: Array) -> tuple[State, Array]:
        slow = state.improved <= rho * window
        stuck = ~state.reduced & (state.loss_check >= state.loss_best)
        due = window > 0
        jump = due & (slow | stuck)
        state, gradient = back_to_best(state, gradient, jump)
        state = state._replace(
            step_size=jnp.where(jump, 0.5 * state.step_size, state.step_size),
            reduced=jnp.where(due, jump, state.reduced),
            loss_check=jnp.where(due, state.loss_best, state.loss_check),
            improved=jnp.where(due, 0, state.improved),
        )
        return state, gradient

    def move(state: State, gradient: Array) -> Array:
        share = threats.per_example(jnp.where(state.number == 0, 1.0, MOMENTUM), gradient)
        size = threats.per_example(state.step_size, gradient)
        stepped = ball.project(state.x + size * ball.ascent(gradient), state.x0)
        return ball.project(state.x + share * (stepped - state.x) + (1 - share) * (state.x - state.x_prev), state.x0)

    return Rule(shrinking_windows(steps), np.arange(steps + 1) == 0, 2.0 * eps, ball.start, _same, check, move)


def _same(state: State) -> State:
    return state
