"""Fisher: squared gradients of single examples weigh the squared error of every entry."""

from typing import Any

import jax
import jax.numpy as jnp

from spartax import gradients
from spartax.arrays import dense
from spartax.quantize.bits._tables import loss_change, tabulate
from spartax.quantize.records import Candidates, Losses, Sensitivity
from spartax.records import Array, Evidence, Weights


def fisher() -> Sensitivity:
    """Loss `sum_i F_i (W_o - W)_i^2 / 2` with `F = E[g^2]` over the gradients of single examples.

    In a minimum the diagonal of the empirical Fisher information stands for that of the Hessian, so this is the
    second-order growth of the mean loss, entry by entry (Kim et al., SqueezeLLM: Dense-and-Sparse Quantization, arXiv
    2306.07629, weighs codes in the same way). One gradient is held at a time.

    Raises:
      ValueError: at use, no labelled batches or loss, a loss that is not finite, gradients that are zero everywhere.
    """

    def losses(weights: Weights, candidates: Candidates, evidence: Evidence) -> Losses:
        judge, batches = gradients.judged("fisher", weights, evidence)
        weights = gradients.full(weights)
        information = gradients.average("fisher", lambda x, y: _squares(judge, weights, x, y), batches)
        return tabulate(candidates, lambda path, leaf: _weighed(leaf, weights[path], information[path]))

    return Sensitivity(frozenset({"objective"}), losses, loss_change)


_squares = jax.jit(gradients.mean_square)


@jax.jit
def _weighed(leaf: Any, weight: Array, information: Array) -> Array:
    return jnp.sum(information * jnp.square(dense(leaf).astype(jnp.float32) - weight)) / 2
