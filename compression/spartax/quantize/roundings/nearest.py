"""Nearest: every entry to the nearest code."""

import jax
import jax.numpy as jnp

from spartax.arrays import quantized
from spartax.quantize.grids import Grid, Part, Rounding, Scales
from spartax.records import Array


def nearest() -> Rounding:
    """`code = clip(round(w / scale) + zero)`, halves to even ("RTN"): the least error of each entry on its own."""
    return Rounding(frozenset(), _round)


def _round(weight: Array, scales: Scales, grid: Grid, part: Part) -> Array:
    del part
    return _codes(weight, scales, grid)


@jax.jit(static_argnums=2)
def _codes(weight: Array, scales: Scales, grid: Grid) -> Array:
    codes = jnp.round(weight / quantized.spread(scales.scale, weight.shape).astype(weight.dtype))
    if scales.zero is not None:
        codes = codes + quantized.spread(scales.zero, weight.shape).astype(codes.dtype)
    return jnp.clip(codes, *grid.codes).astype(jnp.int8)
