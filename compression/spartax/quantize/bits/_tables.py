"""What the sensitivities share: errors of candidates, outputs and losses of the network with them in place."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from spartax import gradients
from spartax.arrays import dense
from spartax.quantize.records import Candidates, Losses
from spartax.records import Array, Evidence, Path, Weights


def tabulate(candidates: Candidates, cost: Callable[[Path, Any], Array | float]) -> Losses:
    """`cost(path, candidate)` of every candidate."""
    return {path: [float(cost(path, leaf)) for leaf in leaves] for path, leaves in candidates.items()}


def scaled_errors(factors: Mapping[Path, Any], weights: Weights, candidates: Candidates) -> Losses:
    """`factor_l * ||W_o - W||^2 / ||W||^2`, what `4^-bits` stands for, as it comes out on each grid."""
    return tabulate(candidates, lambda path, leaf: float(factors[path]) * relative_error(leaf, weights[path]))


@jax.jit
def squared_error(leaf: Any, weight: Array) -> Array:
    """`||W_o - W||^2`."""
    return jnp.sum(jnp.square(dense(leaf).astype(jnp.float32) - weight.astype(jnp.float32)))


@jax.jit
def relative_error(leaf: Any, weight: Array) -> Array:
    """`||W_o - W||^2 / ||W||^2`; 0 for a weight of zeros."""
    size = jnp.sum(jnp.square(weight.astype(jnp.float32)))
    return squared_error(leaf, weight) / jnp.where(size > 0, size, 1)


def mean_loss(judge: gradients.Judge, weights: Weights, batches: Any) -> float:
    """Mean loss of all examples."""
    return sum(len(x) * float(gradients.batch_loss(judge, weights, x, y)) for x, y in batches) / sum(
        len(x) for x, _ in batches
    )


def loss_change(weights: Weights, replaced: Weights, evidence: Evidence) -> float:
    """By how much the mean loss grows with these weights."""
    judge, batches = gradients.judged("mixed", weights, evidence)
    return mean_loss(judge, replaced, batches) - mean_loss(judge, weights, batches)
