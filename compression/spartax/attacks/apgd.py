"""APGD: projected gradient ascent that finds its own step sizes."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from spartax import checks
from spartax.attacks import losses, objective, threats
from spartax.attacks.apgd_l1 import sparse
from spartax.attacks.apgd_rules import Rule, halving, rows
from spartax.attacks.network import Network
from spartax.attacks.resumable import Outcome, Resumable, Rows, reshaped
from spartax.records import Array


class State(NamedTuple):
    """A run between two iterations; every array has the example axis first.

    `x0, y, targets, keys` are the problem; `x, x_prev, x_best, x_adv` the current, previous, highest-loss and first
    misclassified image; `improved` counts rises of the loss since the last check; `reduced` and `loss_check` are the
    outcome of that check; `part` and `support` belong to the l1 rule; `number` is the iteration.
    """

    x0: Array
    y: Array
    targets: Array
    keys: Array
    x: Array
    x_prev: Array
    x_best: Array
    x_adv: Array
    gradient_best: Array
    loss_best: Array
    loss_prev: Array
    loss_check: Array
    step_size: Array
    part: Array
    support: Array
    improved: Array
    reduced: Array
    best_wrong: Array
    broken: Array
    broken_at: Array
    number: Array


class Settings(NamedTuple):
    """What a run is made of, fixed before tracing."""

    rule: Rule
    loss: losses.Loss
    targeted: bool
    eot: int
    parity: bool


def apgd(
    eps: float,
    norm: str = "linf",
    *,
    loss: losses.Loss = losses.cross_entropy,
    steps: int = 100,
    restarts: int = 1,
    rho: float = 0.75,
    eot: int = 1,
    parity: bool = False,
    large_eps: bool = False,
    x_init: Array | None = None,
) -> Resumable:
    """Auto-PGD: momentum steps of length 2 eps, halved (and taken back to the best point) when progress stalls.

    See `apgd_rules.halving` for the rule and Croce and Hein, "Reliable evaluation of adversarial robustness with an
    ensemble of diverse parameter-free attacks", arXiv 2003.01690. For l1 see `apgd_l1.sparse`.

    Args:
      eps: radius in pixel units of [0, 1].
      norm: `"linf"`, `"l2"` or `"l1"`.
      loss: `(logits [B, K], y [B]) -> [B]`, maximized.
      steps: iterations of a run.
      restarts: runs from independent random starts.
      rho: the share of a window's steps that must have raised the loss.
      eot: forward and backward passes averaged into each gradient, for a model that draws.
      parity: count the first iteration as the reference implementation does, against a loss of 0 instead of the loss at
        the start.
      large_eps: l1 only, the schedule that starts with three times the radius.
      x_init: start there instead of at a random image, [B, ...].

    Returns:
      A `Resumable`: `attack(key, logits_fn, x, y, *, index=None) -> x_adv`, the misclassified image of highest loss, or
      where nothing was misclassified the image of highest loss.

    Raises:
      ValueError: an option out of range; `large_eps` with another norm than l1.
    """
    checks.positive_int("restarts", restarts)
    settings = prepare(eps, norm, loss, steps, rho, eot, parity, large_eps, given_start=x_init is not None)

    def start(network: Network, given: Rows, run: Array | int) -> State:
        del network
        return begin(settings, given, given.y, run, x_init)

    described = {"eps": eps, "norm": norm, "loss": loss.__name__, "steps": steps, "restarts": restarts, "rho": rho}
    return resumable(settings, start, {**described, "eot": eot, "parity": parity, "large_eps": large_eps}, restarts)


def prepare(
    eps: float,
    norm: str,
    loss: losses.Loss,
    steps: int,
    rho: float,
    eot: int,
    parity: bool,
    large_eps: bool,
    *,
    targeted: bool = False,
    given_start: bool = False,
) -> Settings:
    """Checked settings of a run; arguments as in `apgd`."""
    threats.threat(norm, eps)  # checks both
    checks.positive_int("steps", steps)
    checks.positive_int("eot", eot)
    checks.in_range("rho", rho, 0.0, 1.0)
    if large_eps and norm != "l1":
        raise ValueError(f"large_eps must be False for norm {norm!r}; the schedule is defined for 'l1'.")
    if norm == "l1":
        rule = sparse(float(eps), steps, large_eps=large_eps, given_start=given_start)
    else:
        rule = halving(norm, float(eps), steps, rho)
    return Settings(rule, loss, targeted, eot, parity)


def resumable(settings: Settings, start, described: dict, restarts: int) -> Resumable:
    """The attack made of these runs; `restarts` of them for each target rank, and one rank if untargeted."""
    ranks = described.get("targets", 1)

    def advance(network: Network, state: State, count: Array | int) -> State:
        shape = state.x0.shape

        def on_rows(x: Array, keys: Array) -> Array:
            return network(x.reshape(shape), keys)

        state = reshaped(state, (shape[0], math.prod(shape[1:])))
        state = jax.lax.fori_loop(0, count, lambda _, state: iterate(settings, on_rows, state), state)
        return reshaped(state, shape)

    return Resumable(
        name="apgd-t" if settings.targeted else "apgd",
        settings=described,
        runs=lambda classes: restarts * min(ranks, classes - 1),
        rank=lambda run: 1 + run // restarts if settings.targeted else 0,
        steps=len(settings.rule.windows),
        forwards=settings.eot,
        backwards=settings.eot,
        start=start,
        advance=advance,
        outcome=outcome,
    )


def begin(settings: Settings, given: Rows, targets: Array, run: Array | int, x_init: Array | None = None) -> State:
    """The state before the first look."""
    keys = objective.fold(given.keys, run)
    x0, count = given.x, jnp.zeros_like(given.y)  # made like the rows, so that they are sharded as these are
    x = settings.rule.start(keys, x0) if x_init is None else jnp.clip(jnp.asarray(x_init, x0.dtype), 0.0, 1.0)
    zeros, never = count.astype(jnp.float32), count.astype(bool)
    return State(
        x0, given.y, targets, keys, x, x, x, x0, jnp.zeros_like(x),
        loss_best=zeros - jnp.inf, loss_prev=zeros, loss_check=zeros,
        step_size=zeros + settings.rule.step_size, part=zeros, support=zeros,
        improved=count, reduced=~never, best_wrong=never, broken=never, broken_at=count - 1, number=count,
    )  # fmt: skip


def iterate(settings: Settings, network: Network, state: State) -> State:
    """One look at the network, the bookkeeping, the check if one is due, and the move."""
    rule = settings.rule
    state = rule.enter(state)
    keys = jax.vmap(jax.random.fold_in)(state.keys, state.number)
    targets = state.targets if settings.targeted else None
    seen = objective.look(network, settings.loss, state.x, state.y, keys, targets, settings.eot)
    last_stage = state.number >= int(rule.fresh.nonzero()[0][-1])
    state = record(state, seen, jnp.asarray(rule.fresh)[state.number], last_stage, settings.parity)
    state, gradient = rule.check(state, seen.gradient, jnp.asarray(rule.windows)[state.number])
    return state._replace(x=rule.move(state, gradient), x_prev=state.x, number=state.number + 1)


def record(state: State, seen: objective.Look, fresh: Array, counts: Array, parity: bool) -> State:
    """What the look at `state.x` changes: first success, best point, number of rises."""
    new = seen.wrong & ~state.broken & counts
    better = fresh | (seen.loss > state.loss_best)
    rose = ~fresh & (seen.loss > state.loss_prev)
    before = jnp.zeros_like(seen.loss) if parity else seen.loss  # what the first iteration is compared with
    return state._replace(
        x_adv=rows(new, state.x, state.x_adv),
        x_best=rows(better, state.x, state.x_best),
        gradient_best=rows(better, seen.gradient, state.gradient_best),
        loss_best=jnp.where(better, seen.loss, state.loss_best),
        loss_prev=jnp.where(fresh, before, seen.loss),
        loss_check=jnp.where(fresh, seen.loss, state.loss_check),
        improved=jnp.where(fresh, 0, state.improved + rose),
        best_wrong=jnp.where(better, seen.wrong, state.best_wrong),
        broken=state.broken | new,
        broken_at=jnp.where(new, state.number, state.broken_at),
    )


def outcome(state: State) -> Outcome:
    """What the run found; the strongest image is the one of highest loss unless only another is misclassified."""
    strongest = rows(state.broken & ~state.best_wrong, state.x_adv, state.x_best)
    best = objective.Best(strongest, state.broken, state.loss_best)
    return Outcome(state.x_adv, state.broken, state.broken_at, best)
