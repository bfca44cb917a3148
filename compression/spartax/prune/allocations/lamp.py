"""LAMP: scores are made comparable between layers before they are ranked together."""

import jax
import jax.numpy as jnp
from jax import lax

from spartax.kernels import threshold
from spartax.records import Allocation, Array, Evidence, Path, Weights


def lamp() -> Allocation:
    """The `K = round((1 - sparsity) N)` largest layer-adaptive scores over all weights; how many are in `l` is `k_l`.

    `lamp(u) = s_u^2 / sum of s_v^2 over all v of the layer with s_v >= s_u`, itself included and equal scores in their
    order: the part of what is left that would go with `u`, once all smaller entries are gone. The scores `s` are those
    of the criterion, negative ones count as zero. It does not depend on the scale of a layer, whose largest entry
    always has 1, so that no layer loses all. With `prune.magnitude()` this is the paper's.

    See Lee et al., Layer-adaptive Sparsity for the Magnitude-based Pruning, arXiv 2010.07611.
    """
    return _allocate


def _allocate(scores: Weights, sparsity: float, evidence: Evidence) -> dict[Path, int]:
    del evidence
    keep = round((1 - sparsity) * sum(score.size for score in scores.values()))
    kept = threshold.kth_largest([ranked(score) for score in scores.values()], keep).kept
    return {path: int(k) for path, k in zip(scores, kept)}


@jax.jit
def ranked(score: Array) -> Array:
    """The layer-adaptive scores of one layer, flat, smallest first."""
    squares = jnp.square(jnp.sort(jnp.maximum(score, 0).ravel()))
    total = lax.cumsum(squares, reverse=True)
    return jnp.where(total > 0, squares / jnp.where(total > 0, total, 1), 0)
