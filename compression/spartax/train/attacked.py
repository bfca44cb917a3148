"""Attacked images of a loss: made against the network in evaluation mode, without a gradient through them."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from spartax import attacks
from spartax.records import Array, Attack
from spartax.train.network import Network

NOISE = 0.001  # of the start, since a distance from the logits at x has no gradient at x

Farthest = Callable[[Network, Array, Array, Array, Array], Array]  # (network, key, x, y, target [B, K]) -> x'


def attacked(attack: Attack, network: Network, key: Array, x: Array, y: Array) -> Array:
    """`attack(f, x, y)` against the network as it is now."""
    return jax.lax.stop_gradient(attack(key, network.logits, x, y))


def farthest(
    distance: Callable[[Array, Array], Array], eps: float, norm: str, steps: int, step_size: float | None
) -> Farthest:
    """The images of the ball whose logits are farthest from `target`, by PGD that starts at `x + 0.001 N(0, 1)`.

    `distance(target [B, K], logits [B, K]) -> [B]`. As always with `attacks.pgd`, a misclassified iterate is kept
    before others, and then the farthest.

    Raises:
      ValueError: as `attacks.pgd`.
    """
    climb = functools.partial(attacks.pgd, eps, norm, steps=steps, step_size=step_size, random_start=NOISE)
    climb()  # bad options are refused now

    def find(network: Network, key: Array, x: Array, y: Array, target: Array) -> Array:
        target = jax.lax.stop_gradient(target)
        return attacked(climb(loss=lambda logits, y: distance(target, logits)), network, key, x, y)

    return find


def averaged_updates(*updates: dict[str, Any]) -> dict[str, Any]:
    """Statistics of batch normalization after several passes from the same beginning: the mean of their results."""
    return jax.tree.map(lambda *values: jnp.mean(jnp.stack(values), axis=0).astype(values[0].dtype), *updates)
