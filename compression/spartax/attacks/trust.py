"""Can the gradients of a network be trusted? Checks to run before believing a robust number.

Gradient masking makes weak networks look strong (Athalye et al., "Obfuscated gradients give a false sense of security",
arXiv 1802.00420). Each check measures one way in which that happens and says so in words.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from spartax.attacks import losses, noise, objective, threats
from spartax.attacks.network import is_random, network, problem
from spartax.records import Array, LogitsFn

DRAWS = 5  # calls with the same images
DIRECTIONS = 8  # random directions per example for the finite difference
FORWARDS, BACKWARDS = DRAWS + 3 + 2 * DIRECTIONS, 3  # passes per example


class Trust(NamedTuple):
    """What was measured; fractions are over the examples.

    Attributes:
      randomized: largest distance between the normalized logits of five calls with the same images (0 = deterministic).
      probabilities: whether the outputs are probabilities instead of logits.
      zero_gradient_clean: fraction of examples whose gradient of the cross-entropy is zero everywhere, at the image.
      zero_gradient_start: the same at a random start in the ball.
      agreement: median over examples of the correlation between directional derivatives by autodiff and by finite
        differences at a quarter of `eps` (at 1/1000 for `eps = 0`); near 1 for a network whose gradients say where its
        loss goes, 0 when they say nothing.
      warnings: one sentence for each check that failed.
    """

    randomized: float
    probabilities: bool
    zero_gradient_clean: float
    zero_gradient_start: float
    agreement: float
    warnings: tuple[str, ...]


class Probe(NamedTuple):
    """What the gradients of each example are like, [B]: zero at the image, zero at a random start, agreement."""

    zero_clean: Array
    zero_start: Array
    agreement: Array


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
    probe = jax.jit(prober(eps, norm))
    given = problem(key, logits_fn, x, y)
    model = jax.tree_util.Partial(logits_fn)
    forward = jax.jit(lambda model, draw: network(model)(given.x, objective.fold(given.keys, draw)))
    runs = np.stack([forward(model, draw) for draw in range(DRAWS)])
    return judge(runs, probe(model, given.x, given.y, given.keys), drawn=is_random(logits_fn))


def prober(eps: float, norm: str) -> Callable[[LogitsFn, Array, Array, Array], Probe]:
    """`(model, x, y, keys) -> Probe`, to be jitted: three gradients, and forward passes along random directions.

    Equal passes are turns of a loop, so that little is compiled. Derivatives along directions are those of the margin,
    which unlike the cross-entropy does not saturate.
    """
    threat, step = threats.threat(norm, eps), eps / 4 or 1e-3

    def probe(model: LogitsFn, x: Array, y: Array, keys: Array) -> Probe:
        call = network(model)

        def slope(turn: tuple[Array, Array]) -> Array:
            def total(x: Array) -> Array:
                logits = call(x, keys)
                return jnp.sum(jnp.where(turn[1], losses.margin(logits, y), losses.cross_entropy(logits, y)))

            return jax.grad(total)(turn[0])

        def along(draw: Array) -> tuple[Array, Array]:
            signs = jnp.where(noise.uniform(objective.fold(keys, draw), x) < 0.5, -1.0, 1.0)
            way = threats.unit(signs, norm)
            ahead, behind = jax.lax.map(lambda s: losses.margin(call(x + s * way, keys), y), jnp.array([step, -step]))
            return jnp.sum((at_margin * way).reshape(len(x), -1), axis=1), (ahead - behind) / (2 * step)

        points = jnp.stack([x, threat.start(keys, x), x])
        at_clean, at_start, at_margin = jax.lax.map(slope, (points, jnp.array([False, False, True])))
        zero_clean, zero_start = (~jnp.any(g.reshape(len(x), -1), axis=1) for g in (at_clean, at_start))
        return Probe(zero_clean, zero_start, correlation(*jax.lax.map(along, jnp.arange(DIRECTIONS))))

    return probe


def correlation(autodiff: Array, finite: Array) -> Array:
    """`<a, f> / (|a| |f|)` of every example, `[directions, B] -> [B]`; 1 where both are zero: the gradient is right."""
    lengths = jnp.linalg.norm(autodiff, axis=0), jnp.linalg.norm(finite, axis=0)
    flat = (lengths[0] == 0) & (lengths[1] == 0)
    return jnp.where(flat, 1.0, jnp.sum(autodiff * finite, axis=0) / jnp.maximum(lengths[0] * lengths[1], 1e-30))


def judge(runs: np.ndarray, probe: Probe, *, drawn: bool) -> Trust:
    """What the measurements mean.

    Args:
      runs: logits of calls with the same images, [calls, B, K].
      probe: what the gradients are like.
      drawn: randomness is expected.
    """
    unit = runs / (np.linalg.norm(runs, axis=-1, keepdims=True) + 1e-12)
    found = Trust(
        float(np.linalg.norm(unit - unit[:1], axis=-1).max()),
        probabilities(runs[0]),
        float(np.mean(probe.zero_clean)),
        float(np.mean(probe.zero_start)),
        float(np.median(probe.agreement)),
        (),
    )
    return found._replace(warnings=sentences(found, drawn))


def probabilities(logits: np.ndarray, slack: float = 1e-5) -> bool:
    """Whether the rows are probabilities."""
    inside = logits.max() < 1 + slack and logits.min() > -slack
    return bool(inside and np.all(np.abs(logits.sum(axis=1) - 1) < slack))


def sentences(found: Trust, drawn: bool) -> tuple[str, ...]:
    """One for each check that failed."""
    said = []
    if found.randomized > 1e-4 and not drawn:
        said.append("randomized: two calls with the same images differ; use version='rand'.")
    if found.probabilities:
        said.append("probabilities: the outputs lie in [0, 1] and add up to 1; give logits, or gradients vanish.")
    for where, rate in (("the clean image", found.zero_gradient_clean), ("a random start", found.zero_gradient_start)):
        if rate > 0:
            said.append(f"zero gradient: {rate:.1%} of the examples have none at {where}; white-box attacks are blind.")
    if found.agreement < 0.5:
        said.append(
            f"gradient agreement {found.agreement:.2f}: derivatives do not say where the loss goes (rounding inside?); "
            "attack by other routes (straight_through, the dense parent), and with Square."
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


def routes_win(accuracy_after: dict[str, float], own: int, slack: float = 0.002) -> tuple[str, ...]:
    """A warning if attacks by other routes broke examples that the first `own` attacks left robust."""
    after = list(accuracy_after.values())
    gap = after[own - 1] - after[-1] if 0 < own <= len(after) else 0.0
    if gap <= slack:
        return ()
    return (f"routes: they broke {100 * gap:.2f} points more than the network's own gradients, which are masked.",)
