"""Taylor: weights whose removal changes the loss most, to first order."""

import jax
import jax.numpy as jnp

from spartax import checks, gradients
from spartax.records import Array, Criterion, Evidence, Weights


def taylor(power: int = 2) -> Criterion:
    """Score `mean over batches of |w g_b| ** power`, `g_b` the gradient of the mean loss of batch b.

    `(w g)^2` is the squared change of the loss when the entry becomes zero, to first order. It is squared batch by
    batch: gradients of opposite sign do not cancel, as they do in `prune.snip()`. Batches count by their examples. See
    Molchanov et al., Importance Estimation for Neural Network Pruning, arXiv 1906.10771.

    Args:
      power: 2, or 1 for `|w g|`.

    Raises:
      ValueError: another power; at use, no labelled batches or loss, a loss that is not finite, gradients all zero.
    """
    checks.one_of("power", power, (1, 2))

    @jax.jit
    def changes(judge: gradients.Judge, weights: Weights, x: Array, y: Array) -> tuple[Array, Weights]:
        loss, gradient = jax.value_and_grad(judge)(weights, x, y)
        return loss, jax.tree.map(lambda w, g: jnp.abs(w * g) ** power, weights, gradient)

    def score(weights: Weights, evidence: Evidence) -> Weights:
        judge, batches = gradients.judged("taylor", weights, evidence)
        weights = gradients.full(weights)
        return gradients.average("taylor", lambda x, y: changes(judge, weights, x, y), batches)

    return Criterion(frozenset({"objective"}), score)
