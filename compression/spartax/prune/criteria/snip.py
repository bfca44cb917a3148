"""SNIP: weights to which the loss of the untrained network is sensitive."""

import jax
import jax.numpy as jnp

from spartax import gradients
from spartax.records import Array, Criterion, Evidence, Weights


def snip() -> Criterion:
    """Score `|w g| / sum |w g|` over all weights, `g` the gradient of the mean loss over all batches.

    `w g` is the gradient of the loss in a mask of ones, so this is how fast the loss changes as the entry is switched
    off. Meant for a network at its initialization, one batch with at least ten examples of every class, and
    `prune.pooled()`. See Lee et al., SNIP: Single-shot Network Pruning, arXiv 1810.02340.

    Raises:
      ValueError: at use, no labelled batches or loss, a loss that is not finite, gradients that are zero everywhere.
    """

    @jax.jit
    def gradient(judge: gradients.Judge, weights: Weights, x: Array, y: Array) -> tuple[Array, Weights]:
        return jax.value_and_grad(judge)(weights, x, y)

    def score(weights: Weights, evidence: Evidence) -> Weights:
        judge, batches = gradients.judged("snip", weights, evidence)
        gradients.warn_if_one_class("snip", batches)
        weights = gradients.full(weights)
        return _shares(weights, gradients.average("snip", lambda x, y: gradient(judge, weights, x, y), batches))

    return Criterion(frozenset({"objective"}), score)


@jax.jit
def _shares(weights: Weights, gradient: Weights) -> Weights:
    size = {path: jnp.abs(w * gradient[path]) for path, w in weights.items()}
    total = sum(jnp.sum(s) for s in size.values())
    return {path: s / total for path, s in size.items()}
