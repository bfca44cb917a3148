"""`equalize`: consecutive layers share the range of every channel between them."""

import jax
import jax.numpy as jnp
from jax import lax

from spartax import checks
from spartax.quantize.folding import Factors, Pairs, channel_peaks, folding, scaled, weight_peaks
from spartax.records import Array, Evidence, Info, Transform, Weights


def equalize(sweeps: int = 20) -> Transform:
    """Cross-layer equalization: channel i is divided by `s_i = sqrt(r1_i / r2_i)` in one layer, multiplied in the next.

    `r1_i` is the largest `|w|` that makes channel i, `r2_i` the largest that reads it; both become `sqrt(r1_i r2_i)`,
    which suits one scale for a whole tensor. Pairs of a deeper network meet in a weight, so all are swept in turn until
    they settle. Where a normalization makes the channel, its scale counts as `r1_i`. A channel of zeros on either side
    keeps its factor. Nagel et al., Data-free quantization through weight equalization and bias correction, arXiv
    1906.04721; it takes no data.

    The pairs are those that `program.scalings` proves: the float network stays the same up to rounding, and `info` says
    for every other weight why its inputs are not scaled. Put it in front of `quantize.quantize`; transforms that need
    measured evidence come in a second call of `compress`.

    Args:
      sweeps: how often all pairs are visited.

    Raises:
      ValueError: sweeps below 1.
    """
    checks.positive_int("sweeps", sweeps)

    def choose(weights: Weights, pairs: Pairs, evidence: Evidence) -> tuple[Factors, Info]:
        return jax.jit(lambda weights: _settled(weights, pairs, sweeps))(weights), {}

    return folding("equalize", frozenset(), choose)


def _settled(weights: Weights, pairs: Pairs, sweeps: int) -> Factors:
    weights = {path: w.astype(jnp.float32) for path, w in weights.items()}

    def sweep(_: Array, factors: Factors) -> Factors:
        for root, pair in pairs.items():
            now = scaled(weights, factors, pairs)
            made = channel_peaks(now[root], pair.divided[root], pair.channels)
            read = weight_peaks(now, pair)
            change = jnp.where((made > 0) & (read > 0), jnp.sqrt(made / jnp.where(read > 0, read, 1.0)), 1.0)
            factors = {**factors, root: factors[root] * change}
        return factors

    return lax.fori_loop(0, sweeps, sweep, {root: jnp.ones(pair.channels) for root, pair in pairs.items()})
