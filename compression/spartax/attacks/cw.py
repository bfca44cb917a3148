"""The attack of Carlini and Wagner: the smallest perturbation that misleads, by weighing its size against a margin."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from spartax import checks
from spartax.attacks import losses, objective, threats
from spartax.attacks.network import Problem, on_any_mesh, problem
from spartax.records import Array, Attack, LogitsFn

UNBOUNDED = 1e10  # the weight above which none has succeeded yet
EDGE = 1.0 - 1e-6  # keeps pixels of 0 and 1 at a finite distance in tanh space


class Search(NamedTuple):
    """What is searched over, per example: weight of the margin and its bounds, allowed change, the best image."""

    weight: Array
    low: Array
    high: Array
    slack: Array
    found: Array
    distance: Array


class Settings(NamedTuple):
    """The settings, checked."""

    norm: str
    steps: int
    searches: int
    learning_rate: float
    confidence: float
    initial: float


def cw(
    eps: float | None = None,
    norm: str = "l2",
    *,
    steps: int | None = None,
    searches: int | None = None,
    learning_rate: float = 0.01,
    confidence: float = 0.0,
    initial: float = 1e-3,
) -> Attack:
    """Minimizes `size(x - x0) + c * max(z_y - max_{k != y} z_k + confidence, 0)` over `w`, `x = (1 + tanh w) / 2`.

    For l2 the size is `|x - x0|_2^2`, and `c` is found per example by bisection. For linf it is
    `sum_i max(|x_i - x0_i| - t, 0)`; a success lowers `t` to 0.9 of the distance reached, a failure doubles `c`.
    See Carlini and Wagner, "Towards evaluating the robustness of neural networks", arXiv 1608.04644. Unlike there, the
    learning rate falls to zero along a cosine: a constant one keeps the image a step away from the boundary.

    Args:
      eps: only an image within this radius is returned; any if left out.
      norm: `"l2"` or `"linf"`.
      steps: Adam steps for one value of `c`; 1000 for l2 and 200 for linf if left out.
      searches: values of `c` (and `t`) tried; 9 for l2 and 30 for linf if left out.
      learning_rate: of Adam at the start.
      confidence: by how much the wrong logit must lead.
      initial: the first `c`.

    Returns:
      `attack(key, logits_fn, x, y, *, index=None) -> x_adv`: the misleading image nearest to each `x`, `x` itself where
      none was found. The attack is deterministic.

    Raises:
      ValueError: an option out of range; at the call, images outside [0, 1] or labels that do not fit.
    """
    checks.one_of("norm", norm, ("l2", "linf"))
    limit = float("inf") if eps is None else eps
    if eps is not None:
        checks.in_range("eps", eps, 0.0, float("inf"), open_high=True)
    steps = {"l2": 1000, "linf": 200}[norm] if steps is None else steps
    searches = {"l2": 9, "linf": 30}[norm] if searches is None else searches
    checks.positive_int("steps", steps)
    checks.positive_int("searches", searches)
    for name, value in (("learning_rate", learning_rate), ("confidence", confidence), ("initial", initial)):
        checks.in_range(name, value, 0.0, float("inf"), open_high=True)
    settings = Settings(norm, steps, searches, learning_rate, confidence, initial)

    @on_any_mesh
    def attack(key: Array, logits_fn: LogitsFn, x: Array, y: Array, *, index: Array | None = None) -> Array:
        given = problem(key, logits_fn, x, y, index)
        clean = objective.forward(given.network, losses.margin, given.x, given.y, given.keys)
        ones = jnp.ones_like(given.y, jnp.float32)
        distance = jnp.where(clean.wrong, 0.0, jnp.inf)
        search = Search(initial * ones, 0 * ones, UNBOUNDED * ones, ones, given.x, distance)
        search = jax.lax.fori_loop(0, searches, lambda _, search: refine(settings, given, search), search)
        return jnp.where(threats.per_example(search.distance <= limit, given.x), search.found, given.x)

    return attack


def refine(settings: Settings, given: Problem, search: Search) -> Search:
    """One minimization, and the next values to try."""
    x = search.found if settings.norm == "linf" else given.x
    best = minimize(settings, given, search, x)
    success = best.success
    nearer = success & (-best.loss < search.distance)
    search = search._replace(
        found=jnp.where(threats.per_example(nearer, x), best.x, search.found),
        distance=jnp.where(nearer, -best.loss, search.distance),
    )
    if settings.norm == "linf":
        weight = jnp.where(success, search.weight, 2.0 * search.weight)
        return search._replace(weight=weight, slack=jnp.minimum(search.slack, 0.9 * search.distance))
    low = jnp.where(success, search.low, jnp.maximum(search.low, search.weight))
    high = jnp.where(success, jnp.minimum(search.high, search.weight), search.high)
    weight = jnp.where(high < UNBOUNDED, 0.5 * (low + high), 10.0 * search.weight)
    return search._replace(weight=weight, low=low, high=high)


def minimize(settings: Settings, given: Problem, search: Search, x: Array) -> objective.Best:
    """Adam from `x`; of the images that mislead, the nearest (its loss is minus the distance)."""
    optimizer = optax.adam(optax.cosine_decay_schedule(settings.learning_rate, settings.steps))

    def image(w: Array) -> Array:
        return 0.5 * (1.0 + jnp.tanh(w))

    def cost(w: Array) -> tuple[Array, tuple[Array, Array]]:
        x = image(w)
        margin = losses.margin(given.network(x, given.keys), given.y)
        lack = jnp.maximum(settings.confidence - margin, 0.0)
        return jnp.sum(size(settings.norm, x - given.x, search.slack) + search.weight * lack), (x, margin)

    def step(_: Array, carry: tuple) -> tuple:
        w, state, best = carry
        gradient, (x, margin) = jax.grad(cost, has_aux=True)(w)
        success = (margin > 0) & (margin >= settings.confidence)
        best = objective.better(best, x, success, -threats.lengths(x - given.x, settings.norm))
        updates, state = optimizer.update(gradient, state, w)
        return optax.apply_updates(w, updates), state, best

    w = jnp.arctanh((2.0 * x - 1.0) * EDGE)
    return jax.lax.fori_loop(0, settings.steps, step, (w, optimizer.init(w), objective.nothing(given.x)))[2]


def size(norm: str, delta: Array, slack: Array) -> Array:
    """What the attack keeps small, [B]."""
    flat = delta.reshape(delta.shape[0], -1)
    if norm == "l2":
        return jnp.sum(flat**2, axis=1)
    return jnp.sum(jnp.maximum(jnp.abs(flat) - slack[:, None], 0.0), axis=1)
