"""Nearest: every entry to the nearest code."""

from spartax.quantize.codes import encode
from spartax.quantize.records import Grid, Part, Rounding, Scales
from spartax.records import Array


def nearest() -> Rounding:
    """`code = clip(round(w / scale) + zero)`, halves to even ("RTN"): the least error of each entry on its own."""
    return Rounding(frozenset(), _round)


def _round(weight: Array, scales: Scales, grid: Grid, part: Part) -> Array:
    del part
    return encode(weight, scales, grid)
