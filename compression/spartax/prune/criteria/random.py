"""Random: the baseline that every criterion must beat."""

import zlib

import jax
import jax.numpy as jnp

from spartax import catalog
from spartax.records import Criterion, Evidence, Weights


def random() -> Criterion:
    """Scores drawn uniformly from [0, 1): weights are removed at random.

    Each weight draws from `evidence.key` folded with its path, so its scores do not depend on what else is pruned.
    """
    return Criterion(frozenset({"key"}), _score)


def _score(weights: Weights, evidence: Evidence) -> Weights:
    key = catalog.need("key", evidence)
    keys = {path: jax.random.fold_in(key, zlib.crc32(path.encode())) for path in weights}
    return {path: jax.random.uniform(keys[path], w.shape, jnp.float32) for path, w in weights.items()}
