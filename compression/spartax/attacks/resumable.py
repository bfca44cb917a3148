"""Attacks that can be paused between iterations, so that finished examples stop costing, and are still attacks."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from spartax.attacks import objective
from spartax.attacks.network import Network, on_any_mesh, problem
from spartax.records import Array, Attack, LogitsFn


class Rows(NamedTuple):
    """The examples a run works on: images [B, ...], labels [B], one key per example [B], clean logits [B, K]."""

    x: Array
    y: Array
    keys: Array
    logits: Array


class Outcome(NamedTuple):
    """What a run found.

    Attributes:
      x: the first misclassified allowed image where `broken`, [B, ...].
      broken: bool [B].
      broken_at: iteration of the first success, int32 [B], -1 where there was none.
      best: the strongest image found, whether or not it succeeds.
    """

    x: Array
    broken: Array
    broken_at: Array
    best: objective.Best


@dataclasses.dataclass(frozen=True, eq=False)  # equal to itself only, so that it can be static under jit
class Resumable:
    """An attack made of independent runs (restarts, targets), each a number of equal iterations; also a plain attack.

    The state of a run is a pytree whose every array has the example axis first. Rows may be taken out of it between two
    `advance` calls, and what the others find does not change.

    Attributes:
      name: what reports call it.
      settings: every hyper-parameter, JSON friendly.
      runs: `classes -> number of runs`.
      rank: `run -> rank of the target class` (1 is the runner-up), 0 for an untargeted run.
      steps: iterations of one run.
      forwards: forward passes of one iteration, counted in images per example.
      backwards: backward passes of one iteration.
      start: `(network, rows, run) -> state`; `run` may be traced, so that all runs share one compilation.
      advance: `(network, state, count) -> state` after `count` more iterations; `count` may be traced.
      outcome: `state -> Outcome`.
    """

    name: str
    settings: dict[str, Any]
    runs: Callable[[int], int]
    rank: Callable[[int], int]
    steps: int
    forwards: int
    backwards: int
    start: Callable[[Network, Rows, Array | int], Any]
    advance: Callable[[Network, Any, Array | int], Any]
    outcome: Callable[[Any], Outcome]

    def named(self, name: str) -> "Resumable":
        """The same attack, called otherwise in reports."""
        return dataclasses.replace(self, name=name)

    def __call__(self, key: Array, logits_fn: LogitsFn, x: Array, y: Array, *, index: Array | None = None) -> Array:
        """All runs on all rows; the strongest image of each example. Arguments as in `records.Attack`."""
        return on_any_mesh(functools.partial(all_runs, self))(key, logits_fn, x, y, index=index)


def all_runs(
    attack: Resumable, key: Array, logits_fn: LogitsFn, x: Array, y: Array, *, index: Array | None = None
) -> Array:
    """The attack as a plain one."""
    given = problem(key, logits_fn, x, y, index)
    rows = Rows(given.x, given.y, given.keys, given.network(given.x, given.keys))

    def run(number: Array, best: objective.Best) -> objective.Best:
        state = attack.advance(given.network, attack.start(given.network, rows, number), attack.steps)
        return objective.better(best, *attack.outcome(state).best)

    return jax.lax.fori_loop(0, attack.runs(given.classes), run, objective.nothing(given.x)).x


def reshaped(state: Any, shape: tuple[int, ...]) -> Any:
    """The state with its images in another shape: sums and steps are several times faster on [B, d] than on images."""
    images = state.x0.shape
    return jax.tree.map(lambda leaf: leaf.reshape(shape) if leaf.shape == images else leaf, state)


class Whole(NamedTuple):
    """State of an attack that cannot be paused."""

    x: Array
    y: Array
    keys: Array
    broken: Array
    broken_at: Array


def whole(attack: Attack, name: str) -> Resumable:
    """Any attack as a `Resumable` of one iteration; it sees each example alone, so batches do not matter.

    Nobody knows its passes; it counts as one each way.
    """

    def start(network: Network, given: Rows, run: Array | int) -> Whole:
        del network, run
        zeros = jnp.zeros_like(given.y)
        return Whole(given.x, given.y, given.keys, zeros.astype(bool), zeros - 1)

    def advance(network: Network, state: Whole, count: Array | int) -> Whole:
        del count

        def one(x: Array, y: Array, key: Array) -> Array:
            return attack(key, lambda x: network(x, jnp.broadcast_to(key, x.shape[:1])), x[None], y[None])[0]

        x = jax.vmap(one)(state.x, state.y, state.keys)
        broken = jnp.argmax(network(x, state.keys), axis=1) != state.y
        return state._replace(x=x, broken=broken, broken_at=jnp.where(broken, 0, -1))

    def outcome(state: Whole) -> Outcome:
        best = objective.Best(state.x, state.broken, jnp.zeros_like(state.y, jnp.float32))
        return Outcome(state.x, state.broken, state.broken_at, best)

    return Resumable(name, {}, lambda classes: 1, lambda run: 0, 1, 1, 1, start, advance, outcome)
