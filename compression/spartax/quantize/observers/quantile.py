"""Quantile: the range without the farthest few activations."""

import jax.numpy as jnp

from spartax import checks
from spartax.kernels.uniform import Uniform
from spartax.quantize.observers._observer import Observer, Seen, edges
from spartax.records import Array


def quantile(fraction: float = 0.9999) -> Observer:
    """The nearest bin end within which this fraction of the activations lies.

    Symmetric grids: of the sizes `|x|`. Asymmetric ones: so many lie below the upper end, and as many above the lower
    one. McKinstry et al., Discovering low-precision networks close to full-precision networks, arXiv
    1809.04191; Wu et al., arXiv 2004.09602.

    Args:
      fraction: in [0.5, 1]; 0.9999 is the percentile 99.99.

    Raises:
      ValueError: a bad fraction.
    """
    checks.in_range("fraction", fraction, 0.5, 1)

    def fit(seen: Seen, grid: Uniform) -> tuple[Array, Array]:
        lower, upper = edges(seen)
        if grid.symmetric:
            half = len(lower) // 2
            top = _reached(seen.counts[half:] + seen.counts[:half][::-1], upper[half:], fraction)
            return -top, top
        least = -_reached(seen.counts[::-1], -lower[::-1], fraction)
        return jnp.minimum(least, 0), jnp.maximum(_reached(seen.counts, upper, fraction), 0)

    return Observer(frozenset({"ranges", "histograms"}), fit)


def _reached(counts: Array, ends: Array, fraction: float) -> Array:
    """The first end with this fraction of the counts behind it."""
    total = jnp.cumsum(counts)
    return ends[jnp.argmax(total >= fraction * total[-1])]
