"""KL: the range whose rounded activations are distributed most like the real ones."""

import jax
import jax.numpy as jnp

from spartax.kernels.uniform import Uniform
from spartax.quantize.observers._observer import Observer, Seen, edges, shrunk
from spartax.records import Array

FLOOR = 1e-4  # probability spread over the bins in use, so that no logarithm is infinite


def kl() -> Observer:
    """Entropy calibration: the share of the whole range with the least `KL(P || Q)`, out of 1, 0.99, ..., 0.01.

    For a range, P is the histogram with everything outside moved into its end bins; Q is what is left of the histogram
    inside when each code spreads its count evenly over the bins in use (P > 0) that round to it. Both with a floor of
    1e-4 in all. The bin of zero counts as its neighbor does: zeros behind a ReLU have a code in any range, and would
    outweigh all else. Ranges of fewer bins than there are codes, where Q is trivially P, are not candidates.
    Migacz, 8-bit inference with TensorRT, GTC 2017; Wu et al., arXiv 2004.09602.
    """

    def fit(seen: Seen, grid: Uniform) -> tuple[Array, Array]:
        (low, high), zero = shrunk(seen), len(seen.counts) // 2
        seen = seen._replace(counts=seen.counts.at[zero].set(seen.counts[zero + 1]))
        best = jnp.argmin(jax.vmap(lambda low, high: _divergence(seen, grid, low, high))(low, high))
        return low[best], high[best]

    return Observer(frozenset({"ranges", "histograms"}), fit)


def _divergence(seen: Seen, grid: Uniform, low: Array, high: Array) -> Array:
    middles, own = jnp.mean(jnp.stack(edges(seen)), 0), grid.fit(low, high)
    if grid.symmetric:
        low, high = -jnp.maximum(-low, high), jnp.maximum(-low, high)
    inside = (middles >= low) & (middles <= high)
    bins = jnp.arange(len(middles))
    first, last = jnp.argmax(inside), len(middles) - 1 - jnp.argmax(inside[::-1])
    moved = jnp.zeros_like(seen.counts).at[jnp.clip(bins, first, last)].add(seen.counts)
    used = moved > 0
    codes = (grid.encode(middles, *own) - grid.codes[0]).astype(jnp.int32)
    total = lambda v: jax.ops.segment_sum(v, codes, 2**grid.bits)  # noqa: E731
    kept = jnp.where(inside, seen.counts, 0)
    even = (total(kept) / jnp.maximum(total((used & inside).astype(kept.dtype)), 1))[codes]
    p, q = _floored(moved, used), _floored(jnp.where(used, even, 0), used)
    divergence = jnp.sum(jnp.where(used, p * (jnp.log(p) - jnp.log(q)), 0))
    return jnp.where(jnp.sum(inside) < 2**grid.bits, jnp.inf, divergence)


def _floored(counts: Array, used: Array) -> Array:
    """Probabilities, at least a little in every bin in use; 1 elsewhere."""
    share = counts / jnp.maximum(jnp.sum(counts), 1)
    return jnp.where(used, (1 - FLOOR) * share + FLOOR / jnp.maximum(jnp.sum(used), 1), 1)
