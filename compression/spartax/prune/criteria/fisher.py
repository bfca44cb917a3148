"""Fisher: the second-order cost of removing a weight, with the diagonal of the empirical Fisher information."""

import jax
import jax.numpy as jnp

from spartax import gradients
from spartax.records import Criterion, Evidence, Weights


def fisher() -> Criterion:
    """Score `w^2 F / 2` with `F = E[g^2]` over the gradients of single examples.

    In a minimum of the loss the diagonal of F stands for that of the Hessian, and the score for the loss that removing
    the entry costs (Optimal Brain Damage, LeCun et al. 1989; Theis et al., Faster Gaze Prediction with Dense Networks
    and Fisher Pruning, arXiv 1801.05787). The gradients of single examples need not vanish where their mean does. One
    of them is held at a time.

    Raises:
      ValueError: at use, no labelled batches or loss, a loss that is not finite, gradients that are zero everywhere.
    """

    squares = jax.jit(gradients.mean_square)

    def score(weights: Weights, evidence: Evidence) -> Weights:
        judge, batches = gradients.judged("fisher", weights, evidence)
        weights = gradients.full(weights)
        return _costs(weights, gradients.average("fisher", lambda x, y: squares(judge, weights, x, y), batches))

    return Criterion(frozenset({"objective"}), score)


@jax.jit
def _costs(weights: Weights, information: Weights) -> Weights:
    return {path: jnp.square(w) * information[path] / 2 for path, w in weights.items()}
