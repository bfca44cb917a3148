"""Squared error: the range in which rounding and clipping together lose least."""

import jax
import jax.numpy as jnp

from spartax.kernels.uniform import Uniform
from spartax.quantize.observers._observer import Observer, Seen, edges, shrunk
from spartax.records import Array


def squared_error() -> Observer:
    """The share `c` of the whole range with the least `E (x - rounded(x))^2`, out of 1, 0.99, ..., 0.01.

    Both ends shrink by the same share; of equal errors the widest range is taken. Nagel et al., A white paper on neural
    network quantization, arXiv 2106.08295, section 3.1.
    """

    def fit(seen: Seen, grid: Uniform) -> tuple[Array, Array]:
        middles, (low, high) = jnp.mean(jnp.stack(edges(seen)), 0), shrunk(seen)

        def error(low: Array, high: Array) -> Array:
            own = grid.fit(low, high)
            lost = middles - grid.decode(grid.encode(middles, *own), *own)
            return jnp.sum(seen.counts * lost * lost)

        best = jnp.argmin(jax.vmap(error)(low, high))
        return low[best], high[best]

    return Observer(frozenset({"ranges", "histograms"}), fit)
