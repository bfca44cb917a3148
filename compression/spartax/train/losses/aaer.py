"""`aaer`: single-step adversarial training that does not overfit, by regularizing abnormal adversarial examples."""

import math

import jax
import jax.numpy as jnp

from spartax import checks
from spartax.records import Array
from spartax.train.divergence import cross_entropy
from spartax.train.losses import fgsm_rs
from spartax.train.network import LOG, Loss, Network, attacking

WEIGHTS = (1.0, 2.5, 1.5)  # of the paper for eps 8/255 with a uniform start


def aaer(
    eps: float,
    *,
    step: float = 1.25,
    start: float = 1.0,
    clamp: bool = True,
    weights: tuple[float, float, float] = WEIGHTS,
    through: bool = False,
) -> Loss:
    """`mean CE(f(x')) + a n/B (b mean_ab(CE(f(x0)) - CE(f(x'))) + c max(var_ab - var_normal, 0))`.

    `x0` is the image with noise and `x'` the attacked one (`train.fgsm_rs`). An example is abnormal if the step lowered
    its loss; there are n of them, and catastrophic overfitting begins with their number. `var` is the mean over the
    abnormal, or the normal, examples of `|f(x') - f(x0)|^2`, and only the abnormal one has a gradient. Without any
    abnormal example, or with nothing else, the regularizer is zero. See Eliminating Catastrophic Overfitting Via
    Abnormal Adversarial Examples Regularization.

    Args:
      eps: linf radius in pixel units of [0, 1].
      step: length of the step in units of eps.
      start: half width of the noise in units of eps.
      clamp: whether the attacked image is clipped to the ball.
      weights: `(a, b, c)`. Published for eps 8, 12, 16, 32 / 255: (1, 2.5, 1.5), (1, 5, 2.75), (1, 7, 3.25),
        (1, 5.75, 1.5); for `step=1, start=2, clamp=False`: (1, 1.5, .15), (1, 5, .55), (1, 8.5, 1.5), (1, 2.75, .75).
      through: whether b's term has a gradient, through `CE(f(x'))`; in the published code it has none, so that it
        counts in the value alone.

    Returns:
      `loss(network, key, x, y) -> (value, updates)`, see `train.Loss`; logs get `abnormal`, n/B of the batch.

    Raises:
      ValueError: a number that is negative or not finite; not three weights.
    """
    fgsm_rs.check(eps, step, start)
    if len(weights) != 3:
        raise ValueError(f"weights must be three numbers (a, b, c); got {weights!r}.")
    for weight in weights:
        checks.in_range("weights", weight, 0.0, math.inf, open_high=True)
    share, by_loss, by_logits = weights

    @attacking
    def loss(network: Network, key: Array, x: Array, y: Array) -> tuple[Array, dict]:
        ends = fgsm_rs.one_step(network, key, x, y, eps, step, start, clamp)
        logits, updates = network.forward(ends.end)
        logits = logits.astype(jnp.float32)
        before, after = cross_entropy(ends.logits, y), cross_entropy(logits, y)
        abnormal = jax.lax.stop_gradient(before > after)
        moved = jnp.sum((logits - ends.logits) ** 2, axis=1)
        spread = _mean(moved, abnormal) - jax.lax.stop_gradient(_mean(moved, ~abnormal))
        fall = before - (after if through else jax.lax.stop_gradient(after))
        term = by_loss * _mean(fall, abnormal) + by_logits * jnp.maximum(spread, 0.0)
        both, part = jnp.any(abnormal) & jnp.any(~abnormal), jnp.mean(abnormal)
        return jnp.mean(after) + share * part * jnp.where(both, term, 0.0), {**updates, LOG: {"abnormal": part}}

    return loss


def _mean(values: Array, chosen: Array) -> Array:
    """Mean of the chosen values; 0 of none."""
    return jnp.sum(jnp.where(chosen, values, 0.0)) / jnp.maximum(jnp.sum(chosen), 1)
