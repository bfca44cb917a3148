"""Threat models: which perturbed images are allowed, where an attack starts, and which way is up.

The set is `{x : |x - x0|_p <= eps} ∩ [0, 1]^d`, one ball per example.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from spartax import checks
from spartax.attacks import noise
from spartax.records import Array

NORMS = ("linf", "l2", "l1")
TINY = 1e-12


class Threat(NamedTuple):
    """One norm and radius.

    Attributes:
      start: `(keys [B], x0 [B, ...]) -> x`, a random allowed image (for linf and l2 on the sphere, before the box).
      project: `(x, x0) -> x`, back into the ball and the box.
      ascent: `gradient -> direction` of norm one along which the linearized loss rises fastest (zero stays zero).
    """

    start: Callable[[Array, Array], Array]
    project: Callable[[Array, Array], Array]
    ascent: Callable[[Array], Array]


def threat(norm: str, eps: float) -> Threat:
    """The threat model of a norm.

    Args:
      norm: `"linf"`, `"l2"` or `"l1"`.
      eps: radius in pixel units of [0, 1].

    Raises:
      ValueError: unknown norm, or eps that is negative or not finite.
    """
    checks.one_of("norm", norm, NORMS)
    checks.in_range("eps", eps, 0.0, float("inf"), open_high=True)
    return {"linf": linf, "l2": l2, "l1": l1}[norm](float(eps))


def per_example(values: Array, like: Array) -> Array:
    """`values [B]` with trailing axes of length one, to be combined with `like [B, ...]`."""
    return values.reshape(values.shape[0], *(1,) * (like.ndim - 1))


def lengths(delta: Array, norm: str) -> Array:
    """`|delta|_p` of every example, `[B, ...] -> [B]`."""
    flat = delta.reshape(delta.shape[0], -1)
    if norm == "linf":
        return jnp.max(jnp.abs(flat), axis=1)
    return jnp.sqrt(jnp.sum(flat**2, axis=1)) if norm == "l2" else jnp.sum(jnp.abs(flat), axis=1)


def unit(delta: Array, norm: str) -> Array:
    """Every example divided by its norm; zero stays zero."""
    return delta / (per_example(lengths(delta, norm), delta) + TINY)


def linf(eps: float) -> Threat:
    """`max_i |x_i - x0_i| <= eps`; starts uniform, scaled to touch the sphere; ascent is the sign."""

    def start(keys: Array, x0: Array) -> Array:
        t = 2.0 * noise.uniform(keys, x0) - 1.0
        return jnp.clip(x0 + eps * unit(t, "linf"), 0.0, 1.0)

    def project(x: Array, x0: Array) -> Array:
        return jnp.clip(jnp.clip(x, x0 - eps, x0 + eps), 0.0, 1.0)

    return Threat(start, project, jnp.sign)


def l2(eps: float) -> Threat:
    """`|x - x0|_2 <= eps`; starts Gaussian, scaled to the sphere; projection scales first and clips second."""

    def start(keys: Array, x0: Array) -> Array:
        return jnp.clip(x0 + eps * unit(noise.normal(keys, x0), "l2"), 0.0, 1.0)

    def project(x: Array, x0: Array) -> Array:
        delta = x - x0
        length = per_example(lengths(delta, "l2"), x)
        return jnp.clip(x0 + delta / (length + TINY) * jnp.minimum(eps, length), 0.0, 1.0)

    return Threat(start, project, lambda gradient: unit(gradient, "l2"))


def l1(eps: float, kept: float = 0.01) -> Threat:
    """`sum_i |x_i - x0_i| <= eps`; starts at a projected Gaussian; projection onto ball ∩ box is exact.

    The exact ascent direction would move one pixel; as in SLIDE (Tramèr and Boneh, arXiv 1904.13000), the `kept`
    fraction of entries with the largest gradient moves, by the same amount each.
    """
    from spartax.attacks.projections import l1_ball_box

    def project(x: Array, x0: Array) -> Array:
        return jnp.clip(x0 + l1_ball_box(x - x0, x0, eps), 0.0, 1.0)

    def start(keys: Array, x0: Array) -> Array:
        return project(x0 + noise.normal(keys, x0), x0)

    def ascent(gradient: Array) -> Array:
        size = jnp.abs(gradient).reshape(gradient.shape[0], -1)
        least = jax.lax.top_k(size, max(1, round(kept * size.shape[1])))[0][:, -1]
        return unit(jnp.where(jnp.abs(gradient) >= per_example(least, gradient), jnp.sign(gradient), 0.0), "l1")

    return Threat(start, project, ascent)
