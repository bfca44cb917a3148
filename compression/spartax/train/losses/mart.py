"""`mart`: adversarial training that counts the examples more that are misclassified."""

import math

import jax
import jax.numpy as jnp

from spartax import checks
from spartax.records import Array, Attack
from spartax.train.attacked import attacked, averaged_updates
from spartax.train.divergence import cross_entropy, divergence
from spartax.train.network import Loss, Network, attacking


def mart(attack: Attack, *, weight: float = 5.0) -> Loss:
    """`mean BCE(p(x'), y) + weight mean KL(p(x) || p(x')) (1 - p_y(x))`, `x' = attack(f, x, y)`.

    `BCE = -log p_y - log(1 - max_{c != y} p_c)`. Both passes are in training mode, and both have a gradient. See Wang
    et al., "Improving Adversarial Robustness Requires Revisiting Misclassified Examples" (ICLR 2020).

    Args:
      attack: such as `attacks.pgd(8 / 255, steps=10)`.
      weight: of the divergence, 0 or more.

    Returns:
      `loss(network, key, x, y) -> (value, updates)`, see `train.Loss`; statistics are the mean of those of both passes.

    Raises:
      ValueError: weight out of its range.
    """
    checks.in_range("weight", weight, 0.0, math.inf, open_high=True)

    @attacking
    def loss(network: Network, key: Array, x: Array, y: Array) -> tuple[Array, dict]:
        moved = attacked(attack, network, key, x, y)
        (clean, first), (logits, second) = network.forward(x), network.forward(moved)
        unsure = -jnp.expm1(-cross_entropy(clean, y))  # 1 - p_y
        each = boosted_cross_entropy(logits, y) + weight * divergence(clean, logits) * unsure
        return jnp.mean(each), averaged_updates(first, second)

    return loss


def boosted_cross_entropy(logits: Array, y: Array) -> Array:
    """`-log p_y - log(1 - max_{c != y} p_c)`, float32 [B]; the second as a sum over the other classes, never log 0."""
    logits = logits.astype(jnp.float32)
    classes = jnp.arange(logits.shape[1])
    rival = jnp.argmax(jnp.where(classes == y[:, None], -jnp.inf, logits), axis=1)
    rest = jnp.where(classes == rival[:, None], -jnp.inf, logits)
    return cross_entropy(logits, y) + jax.nn.logsumexp(logits, axis=1) - jax.nn.logsumexp(rest, axis=1)
