"""From numbers to codes of any grid and back: the two functions that every rounding and calibration shares."""

import jax
import jax.numpy as jnp

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
    return number_formats.encode(positions(weight, scales), grid.levels, grid.codes)


@jax.jit(static_argnums=2)
def decode(codes: Array, scales: Scales, grid: Grid) -> Array:
    """What codes stand for, float32: `(level(code) - zero) * scale`, exactly as the stored leaf computes it."""
    return dense(Quantized(codes, scales.scale, scales.zero, "float32", grid.levels))


def positions(weight: Array, scales: Scales) -> Array:
    """Where each entry lies between the levels: `w / scale + zero`, rounded already where the zero point is an integer.

    A scale of zero counts as 1: its block holds zeros.
    """
    scale = number_formats.scale_values(scales.scale).astype(weight.dtype)
    scale = jnp.where(scale >= jnp.finfo(weight.dtype).tiny, scale, 1)
    found = weight / quantized.spread(scale, weight.shape)
    if scales.zero is None:
        return found
    zero = quantized.spread(scales.zero, weight.shape).astype(found.dtype)
    return (jnp.round(found) if number_formats.is_integer(scales.zero) else found) + zero
