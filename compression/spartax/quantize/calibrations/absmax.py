"""Absmax: the scale that just reaches the largest entry."""

import jax
import jax.numpy as jnp

from spartax.quantize.grids import Calibration, Grid, Part, Scales, over_blocks
from spartax.records import Array


def absmax() -> Calibration:
    """Symmetric: `scale = max|w| / (2**(bits-1) - 1)` of each block; asymmetric: the range, widened to hold zero.

    Asymmetric: `lo = min(w, 0)`, `hi = max(w, 0)`, `scale = (hi - lo) / (2**bits - 1)`, `zero = round(-lo / scale)`
    counted from the smallest code, so that zero is a code. A block of zeros gets scale 1. Rounded to nearest, no entry
    is off by more than `scale / 2`.
    """
    return Calibration(frozenset(), _fit)


def _fit(weight: Array, grid: Grid, part: Part) -> Scales:
    return _scales(weight, grid, grid.scale_shape(weight.shape, part.layout))


@jax.jit(static_argnums=(1, 2))
def _scales(weight: Array, grid: Grid, shape: tuple[int, ...]) -> Scales:
    least, most = grid.codes
    if grid.symmetric:
        return Scales(_stored(over_blocks(jnp.max, jnp.abs(weight), shape) / most, grid), None)
    low = jnp.minimum(over_blocks(jnp.min, weight, shape), 0)
    high = jnp.maximum(over_blocks(jnp.max, weight, shape), 0)
    scale = _stored((high - low) / (most - least), grid)
    zero = least + jnp.round(-low / scale.astype(low.dtype))
    return Scales(scale, jnp.clip(zero, least, most).astype(jnp.int8))


def _stored(scale: Array, grid: Grid) -> Array:
    scale = scale.astype(grid.scale_dtype)
    return jnp.where(scale > 0, scale, jnp.ones_like(scale))
