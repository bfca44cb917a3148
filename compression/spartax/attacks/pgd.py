"""PGD: projected gradient ascent with random restarts."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from spartax import checks
from spartax.attacks import losses, noise, objective, threats
from spartax.attacks.network import Problem, on_any_mesh, problem
from spartax.records import Array, Attack, LogitsFn


class Climb(NamedTuple):
    """The settings of one run, fixed before tracing."""

    ball: threats.Threat
    loss: losses.Loss
    steps: int
    size: float
    random_start: bool | float
    targeted: bool


def pgd(
    eps: float,
    norm: str = "linf",
    *,
    steps: int = 20,
    step_size: float | None = None,
    restarts: int = 1,
    random_start: bool | float = True,
    loss: losses.Loss | None = None,
    targeted: bool = False,
) -> Attack:
    """Projected gradient ascent `x <- P(x + step_size * direction(gradient))` from random starts.

    Every iterate of every restart is a candidate; an example gets its best one: misclassified before any other, then
    the higher loss. See Madry et al., "Towards deep learning models resistant to adversarial
    attacks", arXiv 1706.06083.

    Args:
      eps: radius in pixel units of [0, 1].
      norm: `"linf"`, `"l2"` or `"l1"`.
      steps: gradient steps of one run.
      step_size: length of a step in the norm, in pixel units; `2.5 * eps / steps` when left out.
      restarts: number of runs.
      random_start: start at a random allowed image instead of at `x`; a number is the standard deviation of Gaussian
        noise to start with instead, such as 0.001 where the loss has no gradient at `x` itself.
      loss: `(logits, y) -> [B]`, or `(logits, y, targets) -> [B]` when targeted; cross-entropy when left out.
      targeted: the attack then takes `targets` [B], the classes to reach, and only they count as success.

    Returns:
      `attack(key, logits_fn, x, y, *, index=None, targets=None) -> x_adv`, shapes as in `records.Attack`.

    Raises:
      ValueError: an option out of range; restarts without random starts; at the call, images outside [0, 1], labels
        or targets that do not fit.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from spartax import attacks
      >>> logits_fn = lambda x: jnp.stack([x[:, 0, 0, 0], x[:, 0, 1, 0]], axis=1)  # 0: the first pixel is brighter
      >>> x = jnp.array([[0.6, 0.5], [0.9, 0.2]]).reshape(2, 1, 2, 1)
      >>> x_adv = attacks.pgd(0.1, steps=3)(jax.random.key(0), logits_fn, x, jnp.array([0, 0]))
      >>> x_adv.reshape(2, 2).round(3).tolist() == jnp.array([[0.5, 0.6], [0.8, 0.3]]).tolist()
      True
    """
    ball = threats.threat(norm, eps)
    checks.positive_int("steps", steps)
    checks.positive_int("restarts", restarts)
    size = 2.5 * eps / steps if step_size is None else step_size
    checks.in_range("step_size", size, 0.0, float("inf"), open_high=True)
    checks.in_range("random_start", random_start, 0.0, float("inf"), open_high=True)
    if restarts > 1 and not random_start:
        raise ValueError(f"restarts must be 1 without random_start (all runs would be equal); got {restarts!r}.")
    loss = loss or (losses.ce_targeted if targeted else losses.cross_entropy)
    climb = Climb(ball, loss, steps, float(size), random_start, targeted)

    @on_any_mesh
    def attack(
        key: Array,
        logits_fn: LogitsFn,
        x: Array,
        y: Array,
        *,
        index: Array | None = None,
        targets: Array | None = None,
    ) -> Array:
        given = problem(key, logits_fn, x, y, index)
        aims = _aims(targets, given, targeted)
        best = objective.nothing(given.x)
        return jax.lax.fori_loop(0, restarts, lambda restart, best: run(climb, given, aims, restart, best), best).x

    return attack


def run(climb: Climb, given: Problem, targets: Array | None, restart: Array, best: objective.Best) -> objective.Best:
    """One run of projected gradient ascent: `best` after all its iterates."""
    keys = objective.fold(given.keys, restart)

    def consider(best: objective.Best, x: Array, seen: objective.Look) -> objective.Best:
        success = jnp.argmax(seen.logits, axis=1) == targets if climb.targeted else seen.wrong
        return objective.better(best, x, success, seen.loss)

    def step(number: Array, carry: tuple[Array, objective.Best]) -> tuple[Array, objective.Best]:
        x, best = carry
        seen = objective.look(given.network, climb.loss, x, given.y, objective.fold(keys, number), targets)
        moved = climb.ball.project(x + climb.size * climb.ball.ascent(seen.gradient), given.x)
        return moved, consider(best, x, seen)

    x = first(climb, given.x, keys)
    x, best = jax.lax.fori_loop(0, climb.steps, step, (x, best))
    last = objective.forward(given.network, climb.loss, x, given.y, objective.fold(keys, climb.steps), targets)
    return consider(best, x, last)


def first(climb: Climb, x: Array, keys: Array) -> Array:
    """Where a run starts."""
    if climb.random_start is True:
        return climb.ball.start(keys, x)
    return climb.ball.project(x + climb.random_start * noise.normal(keys, x), x) if climb.random_start else x


def _aims(targets: Array | None, given: Problem, targeted: bool) -> Array | None:
    if targeted != (targets is not None):
        raise ValueError(f"targets must be given exactly when targeted is True; targeted is {targeted!r}.")
    if targets is None:
        return None
    with jax.ensure_compile_time_eval():
        checks.labels("targets", targets, batch=given.y.shape[0], classes=given.classes)
    return jnp.asarray(targets, jnp.int32)
