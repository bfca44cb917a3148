"""FAB: the closest misclassified image, by projections on the linearized decision boundary."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from spartax import checks
from spartax.attacks import losses, noise, objective, threats
from spartax.attacks.apgd_targeted import ranked_class
from spartax.attacks.network import Network
from spartax.attacks.projections import move_to_plane
from spartax.attacks.resumable import Outcome, Resumable, Rows, reshaped
from spartax.records import Array

_STREAM = 4  # folded into every key, so that attacks given the same key do not draw the same numbers
_RADIUS = {"linf": 0.3, "l2": 1.0, "l1": 5.0}  # of random starts where eps is infinite
TINY = 1e-12


class State(NamedTuple):
    """A run between two iterations; every array has the example axis first.

    `x0, y, targets, keys` are the problem (`targets` means nothing in an untargeted run); `x` is the current image,
    `x_adv` the closest misclassified one and `distance` how far it is; `broken` says whether that is within eps and
    `broken_at` since which iteration; `number` is the iteration.
    """

    x0: Array
    y: Array
    targets: Array
    keys: Array
    x: Array
    x_adv: Array
    distance: Array
    broken: Array
    broken_at: Array
    number: Array


class Settings(NamedTuple):
    """What a run is made of, fixed before tracing."""

    eps: float
    norm: str
    steps: int
    targets: int | None
    restarts: int
    alpha_max: float
    eta: float
    beta: float


Boundary = Callable[[Network, State, Array], tuple[Array, Array]]  # (network, state, keys) -> gap [B], its gradient


def fab(
    eps: float,
    norm: str = "linf",
    *,
    steps: int = 100,
    targets: int | None = 9,
    restarts: int = 1,
    alpha_max: float = 0.1,
    eta: float = 1.05,
    beta: float = 0.9,
) -> Resumable:
    """Fast Adaptive Boundary attack: minimizes the distance to the clean image instead of a loss inside a ball.

    With `f = z_t - z_y`, linearized at `x`, and `d(v)` the shortest way from `v` to `f = 0` inside the box,
    `x <- clip((1 - a) (x + eta d(x)) + a (x0 + eta d(x0)))`, `a = min(|d(x)| / (|d(x)| + |d(x0)|), alpha_max)`; where
    that is misclassified, it is compared with the closest image so far and `x <- x0 + beta (x - x0)`. Every iteration
    takes one gradient and one forward pass. See Croce and Hein, "Minimally distorted adversarial examples with a fast
    adaptive boundary attack", arXiv 1907.02044, and AutoAttack, arXiv 2003.01690, for the targeted form.

    Args:
      eps: radius in pixel units of [0, 1] within which an image counts; `math.inf` gives the closest image at any
        distance. It does not influence the search but for the size of random starts.
      norm: `"linf"`, `"l2"` or `"l1"`.
      steps: iterations of a run.
      targets: number of classes t that are aimed at, in decreasing order of their clean logit, one run each; None for
        the class whose boundary is nearest at each iteration, which takes a gradient for every class.
      restarts: runs for each target; the second and later ones start at a random image half of eps away.
      alpha_max: largest pull towards the clean image.
      eta: how far steps go beyond the boundary.
      beta: what remains of the perturbation after a success.

    Returns:
      A `Resumable`: `attack(key, logits_fn, x, y, *, index=None) -> x_adv`, the closest misclassified image within
      eps, or the clean image.

    Raises:
      ValueError: an option out of range.
    """
    checks.in_range("eps", eps, 0.0, math.inf)
    checks.one_of("norm", norm, threats.NORMS)
    checks.positive_int("steps", steps)
    checks.positive_int("restarts", restarts)
    if targets is not None:
        checks.positive_int("targets", targets)
    for name, value, low in (("alpha_max", alpha_max, 0.0), ("beta", beta, 0.0)):
        checks.in_range(name, value, low, 1.0)
    checks.in_range("eta", eta, 1.0, math.inf, open_high=True)
    settings = Settings(float(eps), norm, steps, targets, restarts, alpha_max, eta, beta)

    def advance(network: Network, state: State, count: Array | int) -> State:
        shape = state.x0.shape

        def on_rows(x: Array, keys: Array) -> Array:
            return network(x.reshape(shape), keys)

        state = reshaped(state, (shape[0], math.prod(shape[1:])))
        state = jax.lax.fori_loop(0, count, lambda _, state: iterate(settings, on_rows, state), state)
        return reshaped(state, shape)

    return Resumable(
        name="fab" if targets is None else "fab-t",
        settings=settings._asdict(),
        runs=lambda classes: restarts * (1 if targets is None else min(targets, classes - 1)),
        rank=lambda run: 0 if targets is None else 1 + run // restarts,
        steps=steps,
        forwards=2,
        backwards=1,
        start=lambda network, given, run: begin(settings, given, run),
        advance=advance,
        outcome=outcome,
    )


def begin(settings: Settings, given: Rows, run: Array | int) -> State:
    """The state before the first iteration; images that are misclassified as they are, are at distance zero."""
    keys = objective.fold(objective.fold(given.keys, _STREAM), run)
    targets = given.y if settings.targets is None else ranked_class(given.logits, given.y, 1 + run // settings.restarts)
    x = given.x
    if settings.restarts > 1:
        x = jnp.where(run % settings.restarts > 0, random_start(settings, keys, given.x), given.x)
    wrong = jnp.argmax(given.logits, axis=1) != given.y
    distance = jnp.where(wrong, 0.0, jnp.inf).astype(jnp.float32)
    zero = jnp.zeros_like(given.y)
    return State(
        given.x,
        given.y,
        targets,
        keys,
        x,
        given.x,
        distance,
        broken=wrong,
        broken_at=jnp.where(wrong, 0, -1),
        number=zero,
    )


def random_start(settings: Settings, keys: Array, x0: Array) -> Array:
    """An image half of eps away from the clean one, before it is cut to the box."""
    keys = objective.fold(keys, settings.steps)
    draw = 2.0 * noise.uniform(keys, x0) - 1.0 if settings.norm == "linf" else noise.normal(keys, x0)
    radius = settings.eps if math.isfinite(settings.eps) else _RADIUS[settings.norm]
    return jnp.clip(x0 + 0.5 * radius * threats.unit(draw, settings.norm), 0.0, 1.0)


def iterate(settings: Settings, network: Network, state: State) -> State:
    """One gradient, two projections, one look at the new image; images are `[B, d]` here."""
    keys = jax.vmap(jax.random.fold_in)(state.keys, state.number)
    boundary = targeted if settings.targets is not None else nearest
    gap, slope = boundary(settings, network, state, keys)
    x = move(settings, state, gap, slope)
    wrong = jnp.argmax(network(x, objective.fold(keys, 1)), axis=1) != state.y
    distance = threats.lengths(x - state.x0, settings.norm)
    closer = wrong & (distance < state.distance)
    new = closer & ~state.broken & (distance <= settings.eps)
    return state._replace(
        x=jnp.where(threats.per_example(wrong, x), state.x0 + settings.beta * (x - state.x0), x),
        x_adv=jnp.where(threats.per_example(closer, x), x, state.x_adv),
        distance=jnp.where(closer, distance, state.distance),
        broken=state.broken | new,
        broken_at=jnp.where(new, state.number + 1, state.broken_at),
        number=state.number + 1,
    )


def move(settings: Settings, state: State, gap: Array, slope: Array) -> Array:
    """The new image: between the steps past the boundary from the current and from the clean image."""
    there = move_to_plane(state.x, slope, gap, settings.norm)
    gap_clean = gap + jnp.sum(slope * (state.x0 - state.x), 1)
    from_clean = move_to_plane(state.x0, slope, gap_clean, settings.norm)
    near, far = (jnp.maximum(threats.lengths(step, settings.norm), 1e-8) for step in (there, from_clean))
    pull = jnp.minimum(near / (near + far), settings.alpha_max)[:, None]
    moved = (1 - pull) * (state.x + settings.eta * there) + pull * (state.x0 + settings.eta * from_clean)
    return jnp.clip(moved, 0.0, 1.0)


def targeted(settings: Settings, network: Network, state: State, keys: Array) -> tuple[Array, Array]:
    """`z_t - z_y` and its gradient."""
    del settings
    seen = objective.look(network, losses.margin_targeted, state.x, state.y, keys, state.targets)
    return seen.loss, seen.gradient


def nearest(settings: Settings, network: Network, state: State, keys: Array) -> tuple[Array, Array]:
    """`z_c - z_y` and its gradient for the class with the least `|z_c - z_y| / |gradient|_q`, q dual to the norm.

    One class after the other, so that two gradients are in memory and not one for each class.
    """
    dual = {"linf": "l1", "l2": "l2", "l1": "linf"}[settings.norm]
    logits, pull_back = jax.vjp(lambda x: network(x, objective.fold(keys, 0)), state.x)
    own = losses.chosen(logits, state.y)

    def consider(best: tuple[Array, Array, Array], label: Array) -> tuple[tuple[Array, Array, Array], None]:
        direction = (jnp.arange(logits.shape[1]) == label).astype(logits.dtype) - own
        (slope,), gap = pull_back(direction), jnp.sum(direction * logits, axis=1)
        reach = jnp.abs(gap) / (threats.lengths(slope, dual) + TINY)
        closer = (reach < best[0]) & (state.y != label)
        pick = lambda new, old: jnp.where(threats.per_example(closer, new), new, old)  # noqa: E731
        return (pick(reach, best[0]), pick(gap, best[1]), pick(slope, best[2])), None

    start = jnp.full(state.y.shape, jnp.inf), jnp.zeros(state.y.shape), jnp.zeros_like(state.x)
    (_, gap, slope), _ = jax.lax.scan(consider, start, jnp.arange(logits.shape[1]))
    return gap, slope


def outcome(state: State) -> Outcome:
    """What the run found: the closest misclassified image, where it is within eps; the clean one elsewhere."""
    x = jnp.where(threats.per_example(state.broken, state.x0), state.x_adv, state.x0)
    closeness = jnp.where(state.broken, -state.distance, -jnp.inf)
    return Outcome(x, state.broken, state.broken_at, objective.Best(x, state.broken, closeness))
