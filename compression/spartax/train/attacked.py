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

Farthest = Callable[[Network, Array, Array, Array], Array]  # (network, key, x, target [B, K]) -> x'


def attacked(attack: Attack, network: Network, key: Array, x: Array, y: Array) -> Array:
    """`attack(f, x, y)` against the network as it is now."""
    return jax.lax.stop_gradient(attack(key, network.logits, x, y))


def farthest(
    distance: Callable[[Array, Array], Array], eps: float, norm: str, steps: int, step_size: float | None
) -> Farthest:
    """The images of the ball whose logits are farthest from `target`, by PGD that starts at `x + 0.001 N(0, 1)`.

    `distance(target [B, K], logits [B, K]) -> [B]`. Of all iterates the farthest is kept, whatever its class.

    Raises:
      ValueError: as `attacks.pgd`.
    """
    climb = functools.partial(attacks.pgd, eps, norm, steps=steps, step_size=step_size, random_start=NOISE)
    climb()  # bad options are refused now

    def find(network: Network, key: Array, x: Array, target: Array) -> Array:
        target = jax.lax.stop_gradient(target)
        attack = climb(loss=lambda logits, y: distance(target, logits[:, :-1]))
        # PGD prefers misclassified iterates; with a class more, that is never predicted, as label, all are
        never = jnp.full(x.shape[0], target.shape[1], jnp.int32)
        return attacked(attack, network._replace(logits=lambda x: _one_more(network.logits(x))), key, x, never)

    return find


def _one_more(logits: Array) -> Array:
    """The logits with those of another class, below all others."""
    return jnp.concatenate([logits, jnp.min(logits, axis=1, keepdims=True) - 1.0], axis=1)


def averaged_updates(*updates: dict[str, Any]) -> dict[str, Any]:
    """Statistics of batch normalization after several passes from the same beginning: the mean of their results."""
    return jax.tree.map(lambda *values: jnp.mean(jnp.stack(values), axis=0).astype(values[0].dtype), *updates)
