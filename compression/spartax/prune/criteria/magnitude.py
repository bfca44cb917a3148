"""Magnitude: large weights matter."""

import jax
import jax.numpy as jnp

from spartax.records import Array, Criterion, Evidence, Weights


def magnitude() -> Criterion:
    """Score `|w|`, in float32 at least.

    With `prune.pooled()` this is global magnitude pruning, with `prune.uniform()` layer-wise magnitude pruning
    (Han et al., Learning both Weights and Connections for Efficient Neural Networks, arXiv 1506.02626).
    """
    return Criterion(frozenset(), _score)


def _score(weights: Weights, evidence: Evidence) -> Weights:
    del evidence
    return {path: _size(w) for path, w in weights.items()}


@jax.jit
def _size(w: Array) -> Array:
    return jnp.abs(w).astype(jnp.promote_types(w.dtype, jnp.float32))
