"""Output KL: how far the predictions move with one weight on a grid."""

import jax
import jax.numpy as jnp

from spartax import catalog
from spartax.arrays import dense
from spartax.quantize.bits._tables import tabulate
from spartax.quantize.records import Candidates, Losses, Sensitivity
from spartax.records import Array, Evidence, Weights


def output_kl() -> Sensitivity:
    """Loss `E KL(softmax(z) || softmax(z_o))`, measured with one weight replaced at a time; no labels are needed.

    One forward pass of all batches for every weight and grid. To second order it is the error of the weight in the
    metric of the Fisher information (Cai et al., ZeroQ: A Novel Zero Shot Quantization Framework, arXiv 2001.00281).

    Raises:
      ValueError: at use, no batches with values.
    """

    def losses(weights: Weights, candidates: Candidates, evidence: Evidence) -> Losses:
        return tabulate(candidates, lambda path, leaf: _divergence(weights, {path: dense(leaf)}, evidence))

    return Sensitivity(frozenset({"objective"}), losses, _divergence)


def _divergence(weights: Weights, replaced: Weights, evidence: Evidence) -> float:
    objective = catalog.need("objective", evidence)
    total, count = 0.0, 0
    for batch in objective.batches:
        x = batch[0] if isinstance(batch, tuple | list) else batch
        if isinstance(x, jax.ShapeDtypeStruct):
            raise ValueError("batches must hold values: output_kl measures the output of the network on them.")
        total += float(_kl(objective.logits(weights, x), objective.logits({**weights, **replaced}, x)))
        count += len(x)
    return total / count


@jax.jit
def _kl(logits: Array, moved: Array) -> Array:
    """Sum over all predictions."""
    log_p, log_q = (jax.nn.log_softmax(z.astype(jnp.float32)) for z in (logits, moved))
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q))
