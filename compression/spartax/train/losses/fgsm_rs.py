"""`fgsm_rs`: cross-entropy on images attacked with one step from a random start."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from spartax import checks
from spartax.records import Array
from spartax.train.divergence import cross_entropy
from spartax.train.network import Loss, Network, attacking


class OneStep(NamedTuple):
    """What the single step found.

    Attributes:
      end: the attacked images `[B, ...]`, inside the pixel range.
      logits: `[B, K]` of the images with noise, where the step began.
    """

    end: Array
    logits: Array


def fgsm_rs(eps: float, *, step: float = 1.25, start: float = 1.0, clamp: bool = True) -> Loss:
    """Single-step adversarial training: `mean_i CE(f(x_i'), y_i)`, `x' = P(x + d + step eps sign(grad CE(f(x + d))))`.

    `d` is uniform in `start * [-eps, eps]`, and P clips to the ball and to [0, 1]. All passes are in training mode, as
    in Wong, Rice and Kolter, "Fast is better than free: revisiting adversarial training" (arXiv 2001.03994). It costs
    two forward and two backward passes. Watch `train.overfitting`: single-step training can fall over within an epoch;
    `train.aaer` holds against it.

    Args:
      eps: linf radius in pixel units of [0, 1].
      step: length of the step in units of eps.
      start: half width of the noise in units of eps.
      clamp: whether P clips to the ball too. N-FGSM (arXiv 2202.01181) is `step=1, start=2, clamp=False`.

    Returns:
      `loss(network, key, x, y) -> (value, updates)`, see `train.Loss`.

    Raises:
      ValueError: a number that is negative or not finite.
    """
    check(eps, step, start)

    @attacking
    def loss(network: Network, key: Array, x: Array, y: Array) -> tuple[Array, dict]:
        ends = one_step(network, key, x, y, eps, step, start, clamp)
        logits, updates = network.forward(ends.end)
        return jnp.mean(cross_entropy(logits, y)), updates

    return loss


def check(eps: float, step: float, start: float) -> None:
    """The options of a single step."""
    for name, value in (("eps", eps), ("step", step), ("start", start)):
        checks.in_range(name, value, 0.0, math.inf, open_high=True)


def one_step(
    network: Network, key: Array, x: Array, y: Array, eps: float, step: float, start: float, clamp: bool
) -> OneStep:
    """The single step in training mode; no gradient goes through it."""
    noise = jax.random.uniform(key, x.shape, x.dtype, -start * eps, start * eps)
    first = jnp.clip(x + noise, 0.0, 1.0)

    def total(x: Array) -> tuple[Array, Any]:
        logits, _ = network.forward(x)
        return jnp.sum(cross_entropy(logits, y)), logits

    gradient, logits = jax.grad(total, has_aux=True)(first)
    moved = first + step * eps * jnp.sign(gradient)
    moved = jnp.clip(moved, x - eps, x + eps) if clamp else moved
    return jax.lax.stop_gradient(OneStep(jnp.clip(moved, 0.0, 1.0), logits.astype(jnp.float32)))
