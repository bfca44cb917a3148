"""Can the gradients of a network be trusted? Checks to run before believing a robust number.

Gradient masking makes weak networks look strong (Athalye et al., "Obfuscated gradients give a false sense of security",
arXiv 1802.00420). Each check measures one way in which that happens and says so in words.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from spartax.attacks import losses, objective, threats
from spartax.attacks.network import is_random, problem
from spartax.records import Array, LogitsFn

DIRECTIONS = 8  # random directions per example for the finite difference


class Trust(NamedTuple):
    """What was measured; fractions are over the examples.

    Attributes:
      randomized: largest distance between the normalized logits of five calls with the same images (0 = deterministic).
      probabilities: whether the outputs are probabilities instead of logits.
      zero_gradient_clean: fraction of examples whose gradient of the cross-entropy is zero everywhere, at the image.
      zero_gradient_start: the same at a random start in the ball.
      agreement: median over examples of the correlation between directional derivatives by autodiff and by finite
        differences at a quarter of `eps`; near 1 for a network whose gradients say where its loss goes, 0 when they
        say nothing, NaN for `eps = 0`.
      warnings: one sentence for each check that failed.
    """

    randomized: float
    probabilities: bool
    zero_gradient_clean: float
    zero_gradient_start: float
    agreement: float
    warnings: tuple[str, ...]


def trust(key: Array, logits_fn: LogitsFn, x: Array, y: Array, *, eps: float, norm: str = "linf") -> Trust:
    """Run the checks on one batch of clean images.

    Args:
      key: PRNG key for the random start and directions.
      logits_fn: `x [B, ...] -> logits [B, K]`.
      x: images in [0, 1], [B, ...]; a hundred or so are enough.
      y: labels, int32 [B].
      eps: radius of the attack that follows, in units of [0, 1].
      norm: "linf", "l2" or "l1".

    Raises:
      ValueError: as for every attack.
    """
    threat = threats.threat(norm, eps)
    given = problem(key, logits_fn, x, y)
    call = lambda x: given.network(x, given.keys)  # noqa: E731
    randomized = _spread(lambda draw: given.network(given.x, objective.fold(given.keys, draw)))
    logits = jax.jit(call)(given.x)
    start = threat.start(given.keys, given.x)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(losses.cross_entropy(call(x), given.y))))
    zero = [float(jnp.mean(~jnp.any(gradient(v).reshape(len(x), -1), axis=1))) for v in (given.x, start)]
    agreement = float(_agreement(call, key, given.x, given.y, eps / 4, norm)) if eps > 0 else float("nan")
    found = Trust(randomized, _probabilities(logits), zero[0], zero[1], agreement, ())
    return found._replace(warnings=_warnings(found, is_random(logits_fn)))


def _spread(call: Callable[[int], Array]) -> float:
    """Largest L2 distance between L2-normalized logits over five calls."""
    runs = jnp.stack([_normalized(call(draw)) for draw in range(5)])
    return float(jnp.max(jnp.linalg.norm(runs - runs[:1], axis=-1)))


def _normalized(logits: Array) -> Array:
    return logits / (jnp.linalg.norm(logits, axis=-1, keepdims=True) + 1e-12)


def _probabilities(logits: Array, slack: float = 1e-5) -> bool:
    inside = (jnp.max(logits) < 1 + slack) & (jnp.min(logits) > -slack)
    return bool(inside & jnp.all(jnp.abs(jnp.sum(logits, axis=1) - 1) < slack))


def _agreement(call: LogitsFn, key: Array, x: Array, y: Array, step: float, norm: str) -> Array:
    """Median over examples of <a, f> / (|a| |f|), a and f the derivatives along the same random sign directions.

    The loss is the margin, which unlike the cross-entropy does not saturate. Where both are zero the gradient is right.
    """
    margin = lambda x: losses.margin(call(x), y)  # noqa: E731
    gradient = jax.grad(lambda x: jnp.sum(margin(x)))(x)

    @jax.jit
    def along(key: Array) -> tuple[Array, Array]:
        direction = threats.unit(jax.random.rademacher(key, x.shape, jnp.float32), norm)
        autodiff = jnp.sum((gradient * direction).reshape(len(x), -1), axis=1)
        return autodiff, (margin(x + step * direction) - margin(x - step * direction)) / (2 * step)

    pairs = [along(k) for k in jax.random.split(key, DIRECTIONS)]
    a, f = (jnp.stack(v) for v in zip(*pairs))
    norms = jnp.linalg.norm(a, axis=0) * jnp.linalg.norm(f, axis=0)
    flat = (jnp.linalg.norm(a, axis=0) == 0) & (jnp.linalg.norm(f, axis=0) == 0)
    return jnp.median(jnp.where(flat, 1.0, jnp.sum(a * f, axis=0) / jnp.maximum(norms, 1e-30)))


def _warnings(found: Trust, declared_random: bool) -> tuple[str, ...]:
    said = []
    if found.randomized > 1e-4 and not declared_random:
        said.append("randomized: two calls with the same images differ; use version='rand'.")
    if found.probabilities:
        said.append("probabilities: the outputs lie in [0, 1] and add up to 1; give logits, or gradients vanish.")
    for where, rate in (("the clean image", found.zero_gradient_clean), ("a random start", found.zero_gradient_start)):
        if rate > 0:
            said.append(f"zero gradient: {rate:.1%} of the examples have none at {where}; white-box attacks are blind.")
    if found.agreement < 0.5:
        said.append(
            f"gradient agreement {found.agreement:.2f}: derivatives do not say where the loss goes (rounding inside?); "
            "attack with straight_through, by transfer from the dense network, and with Square."
        )
    return tuple(said)


def square_wins(accuracy_after: dict[str, float], slack: float = 0.002) -> tuple[str, ...]:
    """A warning if Square, which needs no gradients, broke examples that no white-box attack before it broke.

    Args:
      accuracy_after: attack name -> robust accuracy after it, in the order they ran.
      slack: difference in accuracy that may be chance.
    """
    names = list(accuracy_after)
    if "square" not in names or names.index("square") == 0:
        return ()
    before = accuracy_after[names[names.index("square") - 1]]
    if accuracy_after["square"] < before - slack:
        gap = 100 * (before - accuracy_after["square"])
        return (
            f"square: a black-box attack broke {gap:.2f} points more than the gradient attacks; gradients are masked.",
        )
    return ()
