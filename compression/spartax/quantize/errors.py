"""The error that codes of a grid make in each block."""

import jax.numpy as jnp

from spartax.quantize.codes import decode, encode
from spartax.quantize.ranges import over_blocks
from spartax.quantize.records import Grid, Scales
from spartax.records import Array


def block_errors(weight: Array, scales: Scales, grid: Grid, kept: Array | None, power: float = 2.0) -> Array:
    """`sum |w - q(w)|**power` over the kept entries of every block, each at its nearest code; of `grid.scale_shape`."""
    off = jnp.abs(weight - decode(encode(weight, scales, grid), scales, grid)) ** power
    return over_blocks(jnp.sum, off if kept is None else off * kept, scales.scale.shape)
