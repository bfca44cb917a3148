"""From numbers to codes of any grid and back: what every rounding and calibration shares."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from spartax.arrays import Quantized, dense, quantized
from spartax.kernels import levels as number_formats
from spartax.quantize.records import Grid, Scales
from spartax.records import Array


@jax.jit(static_argnums=2)
def encode(weight: Array, scales: Scales, grid: Grid) -> Array:
    """The nearest code of every entry: `round(w / scale) + zero` on integers, the nearest level on other formats.

    Halves go to the even code; what lies beyond the last code gets the last code.

    Args:
      weight: floats of any shape.
      scales: of that weight, as they are stored.
      grid: which codes there are.

    Returns:
      int8 codes of the same shape, inside `grid.codes`.
    """
    found = _ratios(weight, scales)
    if scales.zero is not None:  # an integer zero point is added last, so that halves round as they do without it
        found = (jnp.round(found) if number_formats.is_integer(scales.zero) else found) + _zeros(scales.zero, found)
    return number_formats.encode(found, grid.levels, grid.codes)


@jax.jit(static_argnums=2)
def decode(codes: Array, scales: Scales, grid: Grid) -> Array:
    """What codes stand for, float32: `(level(code) - zero) * scale`, exactly as the stored leaf computes it."""
    return dense(Quantized(codes, scales.scale, scales.zero, "float32", grid.levels))


@jax.jit(static_argnums=2)
def between(weight: Array, scales: Scales, grid: Grid) -> tuple[Array, Array, Array]:
    """The codes around every entry, and how far it lies on the way: `(below, above, share)`, int8, int8, [0, 1).

    `w = (1 - share) * below + share * above`, as numbers. Beyond the first or last level both codes are that level's.
    """
    found = _ratios(weight, scales)
    if scales.zero is not None:
        found = found + _zeros(scales.zero, found)
    codes, levels = _ascending(grid)
    at = jnp.searchsorted(jnp.asarray(levels), found, side="right")
    below, above = jnp.maximum(at - 1, 0), jnp.minimum(at, len(levels) - 1)
    low, high = jnp.asarray(levels)[below], jnp.asarray(levels)[above]
    share = jnp.where(high > low, (found - low) / jnp.where(high > low, high - low, 1), 0)
    return jnp.asarray(codes)[below], jnp.asarray(codes)[above], share


@functools.cache
def _ascending(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """The codes in the order of their levels, one for each level, and the levels."""
    with jax.ensure_compile_time_eval():
        codes = np.arange(grid.codes[0], grid.codes[1] + 1).astype(np.int8)
        levels = np.asarray(number_formats.decode(jnp.asarray(codes), grid.levels))
    codes, levels = codes[np.isfinite(levels)], levels[np.isfinite(levels)]
    order = np.lexsort((codes < 0, levels))  # of the two zeros of a float format, the positive one
    levels, first = np.unique(levels[order], return_index=True)
    return codes[order][first], levels


def _ratios(weight: Array, scales: Scales) -> Array:
    """`w / scale`; a scale of zero counts as 1: its block holds zeros."""
    scale = number_formats.scale_values(scales.scale).astype(weight.dtype)
    scale = jnp.where(scale >= jnp.finfo(weight.dtype).tiny, scale, 1)
    return weight / quantized.spread(scale, weight.shape)


def _zeros(zero: Array, found: Array) -> Array:
    return quantized.spread(zero, found.shape).astype(found.dtype)
