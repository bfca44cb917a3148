"""Stochastic: up or down by chance, right on average."""

import zlib

import jax

from spartax import catalog
from spartax.quantize.codes import between
from spartax.quantize.records import Grid, Part, Rounding, Scales
from spartax.records import Array


def stochastic() -> Rounding:
    """The level above with the probability of how far the entry lies on the way to it, else the level below.

    Unbiased within the range of the codes: `E[q(w)] = w` (Limited numerical precision, arXiv 1502.02551), at up to
    twice the mean error of `nearest`. Each array draws from `evidence.key` folded with its path, so its codes do not
    depend on what else is quantized. An attack on such a network must average over keys.
    """
    return Rounding(frozenset({"key"}), _round)


def _round(weight: Array, scales: Scales, grid: Grid, part: Part) -> Array:
    key = jax.random.fold_in(catalog.need("key", part.evidence), zlib.crc32(part.path.encode()))
    return _drawn(jax.random.fold_in(key, part.index), weight, scales, grid)


@jax.jit(static_argnums=3)
def _drawn(key: Array, weight: Array, scales: Scales, grid: Grid) -> Array:
    below, above, share = between(weight, scales, grid)
    return jax.numpy.where(jax.random.uniform(key, weight.shape, share.dtype) < share, above, below)
