"""Wanda: large weights on large inputs matter."""

import jax
import jax.numpy as jnp

from spartax import catalog, checks
from spartax.arrays import rows
from spartax.records import Array, Criterion, Evidence, Layout, Weights


def wanda() -> Criterion:
    """Score `|w_ij| sqrt(E[x_j^2])`, x the inputs of the weight (patches for a convolution).

    The published method compares the inputs of one output unit with each other:
    `prune.prune(prune.wanda(), 0.5, prune.uniform(), prune.per_output())`. Weights are not moved. See Sun et al., A
    Simple and Effective Pruning Approach for Large Language Models, arXiv 2306.11695.

    Raises:
      ValueError: at use, moments are missing, or zero everywhere for a weight.
    """

    def score(weights: Weights, evidence: Evidence) -> Weights:
        moments = catalog.need("moments", evidence)
        for path in weights:
            checks.nonzero(f"wanda: the input of {path}", [moments[path]])
        return {path: _sizes(w, moments[path], evidence.layouts[path]) for path, w in weights.items()}

    return Criterion(frozenset({"moments"}), score)


@jax.jit(static_argnums=2)
def _sizes(weight: Array, moments: Array, layout: Layout) -> Array:
    matrix = rows.to_rows(weight.astype(jnp.promote_types(weight.dtype, jnp.float32)), layout)
    power = jnp.diagonal(moments, axis1=-2, axis2=-1)
    return rows.from_rows(jnp.abs(matrix) * jnp.sqrt(power)[..., None, :], weight.shape, layout)
