"""Pruning sensitivity: the loss that a weight costs while it is pruned alone (CPTQuant's PMPQ)."""

from collections.abc import Sequence

import numpy as np

from spartax import checks, gradients
from spartax.kernels import threshold
from spartax.quantize.bits._tables import mean_loss, scaled_errors
from spartax.quantize.records import Candidates, Losses, Sensitivity
from spartax.records import Array, Evidence, Weights


def pruning_sensitivity(sparsities: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9)) -> Sensitivity:
    """Loss `S_l * ||W_o - W||^2 / ||W||^2`, S the area under the growth of the mean loss over the sparsity of `W_l`.

    The smallest entries of one weight are removed, the others stay; the area is that of the trapezoids from sparsity 0
    on, growth below 0 counting as none. One forward pass of all batches for every weight and sparsity. After the
    pruning metric of Nanda et al., CPTQuant (S043), whose abstract alone is public: the score times the relative error
    on a grid, in place of `4^-bits`, is our reading.

    Args:
      sparsities: rising, in (0, 1).

    Raises:
      ValueError: other sparsities; at use, no labelled batches or loss.
    """
    if not sparsities or list(sparsities) != sorted(set(sparsities)):
        raise ValueError(f"sparsities must rise; got {tuple(sparsities)!r}.")
    for value in sparsities:
        checks.in_range("sparsities", value, 1e-9, 1.0, open_high=True)

    def losses(weights: Weights, candidates: Candidates, evidence: Evidence) -> Losses:
        judge, batches = gradients.judged("pruning_sensitivity", weights, evidence)
        start = mean_loss(judge, weights, batches)
        factors = {}
        for path, weight in weights.items():
            pruned = ({**weights, path: _pruned(weight, sparsity)} for sparsity in sparsities)
            growth = [0.0, *(max(mean_loss(judge, w, batches) - start, 0.0) for w in pruned)]
            factors[path] = np.trapezoid(growth, [0.0, *sparsities])
        return scaled_errors(factors, weights, candidates)

    return Sensitivity(frozenset({"objective"}), losses)


def _pruned(weight: Array, sparsity: float) -> Array:
    keep = round((1 - sparsity) * weight.size)
    return weight * threshold.top(abs(weight), keep)
