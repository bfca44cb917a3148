"""OWL: layers with more outlying scores keep more."""

import jax
import jax.numpy as jnp
import numpy as np

from spartax import checks
from spartax.prune.allocations.pooled import settle
from spartax.records import Allocation, Array, Evidence, Path, Weights


def owl(outlier: float = 5.0, band: float = 0.08) -> Allocation:
    """Densities `d_l = (1 - sparsity) + r_l - mean(r)`, with `r` the outlier shares rescaled to `[0, 2 band]`.

    The outlier share of a layer is the part of its scores above `outlier` times their mean. The mean of `r` is weighted
    by the sizes, so that the total is exactly `round((1 - sparsity) N)`; the band is narrowed to half the distance of
    the density from 0 and 1, so that no layer leaves them. Meant for the scores of Wanda. See Yin et al., Outlier
    Weighed Layerwise Sparsity, arXiv 2310.05175.

    Args:
      outlier: multiple of the mean above which a score is an outlier (5 in the paper).
      band: half the width of the band of densities (0.08 in the paper).

    Raises:
      ValueError: `outlier` not positive, or `band` outside [0, 0.5].
    """
    checks.in_range("outlier", outlier, np.finfo(float).tiny, np.inf)
    checks.in_range("band", band, 0.0, 0.5)

    def allocate(scores: Weights, sparsity: float, evidence: Evidence) -> dict[Path, int]:
        del evidence
        sizes = np.array([score.size for score in scores.values()])
        shares = np.array([float(_share(score, outlier)) for score in scores.values()])
        spread = shares.max() - shares.min()
        width = 2 * min(band, sparsity / 2, (1 - sparsity) / 2)
        shift = width * (shares - shares.min()) / spread if spread else np.zeros(len(shares))
        density = 1 - sparsity + shift - np.average(shift, weights=sizes)
        kept = settle(density * sizes, sizes, round((1 - sparsity) * int(sizes.sum())))
        return dict(zip(scores, kept.tolist()))

    return allocate


@jax.jit
def _share(score: Array, outlier: float) -> Array:
    """Part of the scores above `outlier` times their mean, among entries that may be kept."""
    alive = jnp.isfinite(score)
    count = jnp.maximum(jnp.sum(alive), 1)
    mean = jnp.sum(jnp.where(alive, score, 0)) / count
    return jnp.sum(alive & (score > outlier * mean)) / count
