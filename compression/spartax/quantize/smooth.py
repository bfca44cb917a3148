"""`smooth`: outliers of activations move into the weights that read them."""

import jax
import jax.numpy as jnp

from spartax import catalog, checks
from spartax.quantize.folding import Factors, Pairs, folding, in_place, weight_peaks
from spartax.records import Evidence, Info, Transform, Weights

LEAST = 1e-5  # of a peak


def smooth(alpha: float = 0.5) -> Transform:
    """Channel j of an activation is divided by `s_j = max |x_j|**alpha / max |w_j|**(1 - alpha)`, its readers take it.

    The maxima run over the calibration data and over all weights that read the channel; both are at least 1e-5. A
    channel that no batch excites, or nothing weighs, keeps the factor 1. Meant for 8-bit weights *and* activations
    (`quantize.activations`). SmoothQuant, Xiao et al., arXiv 2211.10438.

    The pairs are those that `program.scalings` proves: the float network stays the same up to rounding, and `info` says
    for every other weight why its inputs are not scaled. Put it in front of `quantize.quantize`; transforms that need
    measured evidence (static scales of activations) come in a second call of `compress`.

    Args:
      alpha: in [0, 1], how much of the range the weights take over; 0.8 to 0.9 for heavy outliers.

    Raises:
      ValueError: alpha outside [0, 1]; at use, a weight that is used several times, whose inputs cannot be told apart,
        and inputs that are always zero.
    """
    checks.in_range("alpha", alpha, 0, 1)

    def choose(weights: Weights, pairs: Pairs, evidence: Evidence) -> tuple[Factors, Info]:
        peaks = {path: catalog.need("peaks", evidence)[path] for pair in pairs.values() for path in pair.multiplied}
        for path, x in peaks.items():
            checks.nonzero(f"smooth: the input of {path}", [x])
        placed = {path: in_place(x, evidence.layouts[path], weights[path].shape) for path, x in peaks.items()}
        return jax.jit(lambda weights, placed: _factors(weights, placed, pairs, alpha))(weights, placed), {}

    return folding("smooth", frozenset({"peaks"}), choose)


def _factors(weights: Weights, placed: Weights, pairs: Pairs, alpha: float) -> Factors:
    found = {}
    for root, pair in pairs.items():
        inputs, sizes = weight_peaks(placed, pair), weight_peaks(weights, pair)
        s = jnp.maximum(inputs, LEAST) ** alpha / jnp.maximum(sizes, LEAST) ** (1 - alpha)
        found[root] = jnp.where((inputs > 0) & (sizes > 0), s, 1.0)
    return found
