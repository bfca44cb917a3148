"""Taylor: the first-order effect of a layer's input on the loss (CPTQuant's TDMPQ)."""

import jax
import jax.numpy as jnp

from spartax import gradients
from spartax.quantize.bits._tables import scaled_errors
from spartax.quantize.records import Candidates, Losses, Sensitivity
from spartax.records import Array, Evidence, Path, Weights


def taylor() -> Sensitivity:
    """Loss `E|sum_i x_i dL/dx_i| * ||W_o - W||^2 / ||W||^2`, x what the weight reads of one example.

    What flows through a linear layer gives `sum_i x_i dL/dx_i = sum_ij W_ij dL/dW_ij`, so gradients of single examples
    in the weights are all it takes. After the Taylor decomposition of Nanda et al., CPTQuant: A Novel Mixed Precision
    Post-Training Quantization Techniques for Large Language Models (S043), whose abstract alone is public: the score of
    a layer times its relative error on a grid, in place of `4^-bits`, is our reading.

    Raises:
      ValueError: at use, no labelled batches or loss, a loss that is not finite, gradients that are zero everywhere.
    """

    def losses(weights: Weights, candidates: Candidates, evidence: Evidence) -> Losses:
        judge, batches = gradients.judged("taylor", weights, evidence)
        wide = gradients.full(weights)
        flows = gradients.average("taylor", lambda x, y: _flows(judge, wide, x, y), batches)
        return scaled_errors(flows, weights, candidates)

    return Sensitivity(frozenset({"objective"}), losses)


@jax.jit
def _flows(judge: gradients.Judge, weights: Weights, x: Array, y: Array) -> tuple[Array, dict[Path, Array]]:
    add = lambda total, g: {p: t + jnp.abs(jnp.vdot(weights[p], g[p])) for p, t in total.items()}  # noqa: E731
    loss, total = gradients.per_example(judge, weights, x, y, add, {path: jnp.zeros(()) for path in weights})
    return loss, {path: t / len(x) for path, t in total.items()}
