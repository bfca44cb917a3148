"""What each layer loses at each of several counts: the tables that a knapsack chooses from."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from spartax import catalog
from spartax.kernels import threshold
from spartax.records import Array, Evidence, Path, Weights

Counts = Mapping[Path, Sequence[int]]  # kept counts of every layer, falling

NEEDS = frozenset({"objective", "originals"})


def distortions(scores: Weights, counts: Counts, evidence: Evidence, worst: bool = False) -> dict[Path, np.ndarray]:
    """`mean (y - y')^2` over examples and logits, with one layer pruned to each of its counts and the others dense.

    The largest scores of the layer are kept, none that is minus infinity. Each curve is made monotone (it never falls
    as the count does), since noise may make it dip.

    Args:
      scores: of the criterion.
      counts: kept counts of every layer, falling.
      evidence: `objective` and `originals`.
      worst: take the worst example instead of the mean over them.
    """
    logits, originals = catalog.need("objective", evidence).logits, catalog.need("originals", evidence)
    dense = {path: originals[path] for path in scores}
    inputs = [b[0] if isinstance(b, tuple | list) else b for b in catalog.need("objective", evidence).batches]
    reference = [logits(dense, x) for x in inputs]
    found = {}
    for path, score in scores.items():
        curve = []
        for keep in counts[path]:
            pruned = {**dense, path: _pruned(dense[path], score, threshold.top(score, keep))}
            errors = [np.asarray(_error(logits(pruned, x), y)) for x, y in zip(inputs, reference)]
            curve.append((np.max if worst else np.mean)(np.concatenate(errors)))
        found[path] = np.maximum.accumulate(np.array(curve, np.float64))
    return found


def removed(scores: Weights, counts: Counts) -> dict[Path, np.ndarray]:
    """The sum of the scores that are not kept, when the largest are; those of minus infinity are left out."""
    found = {}
    for path, score in scores.items():
        rising = np.sort(np.asarray(score, np.float64).ravel())
        sums = np.concatenate([[0.0], np.cumsum(np.where(np.isneginf(rising), 0.0, rising))])
        found[path] = sums[score.size - np.asarray(counts[path])]
    return found


@jax.jit
def _pruned(weight: Array, score: Array, mask: Array) -> Array:
    return jnp.where(mask & ~jnp.isneginf(score), weight, jnp.zeros((), weight.dtype))


@jax.jit
def _error(logits: Array, reference: Array) -> Array:
    """Mean squared difference of each example, [B]."""
    difference = logits.astype(jnp.float32) - reference.astype(jnp.float32)
    return jnp.mean(jnp.square(difference).reshape(len(difference), -1), axis=1)
