"""Absmax: the scale that just reaches the largest entry."""

import jax

from spartax.quantize.ranges import block_range, from_range, refuse_binary
from spartax.quantize.records import Calibration, Grid, Part, Scales
from spartax.records import Array


def absmax() -> Calibration:
    """Symmetric: `scale = max|w| / largest level` of each block; asymmetric: the range, widened to hold zero.

    Asymmetric: `lo = min(w, 0)`, `hi = max(w, 0)`, `scale = (hi - lo) / (2**bits - 1)`, `zero = round(-lo / scale)`
    counted from the smallest code, so that zero is a code; with float zero points the range as it is, not rounded. A
    block of zeros gets scale 1. Shared exponents are `floor(log2 max|w|)` minus that of the largest level, so that an
    entry may lie a little beyond it (Microscaling, arXiv 2310.10537). A fixed-point grid keeps its step. Rounded to
    nearest on integers, no entry is off by more than `scale / 2`.

    Raises:
      ValueError: the grid `binary`, which has one magnitude: reaching the largest entry is worse than all zeros.
    """
    return Calibration(frozenset(), _fit, _check)


def _check(grid: Grid) -> None:
    refuse_binary("absmax()", grid)


def _fit(weight: Array, grid: Grid, part: Part) -> Scales:
    return _scales(weight, part.kept, grid, grid.scale_shape(weight.shape, part.layout))


@jax.jit(static_argnums=(2, 3))
def _scales(weight: Array, kept: Array | None, grid: Grid, shape: tuple[int, ...]) -> Scales:
    return from_range(*block_range(weight, kept, grid, shape), grid)
