"""Percentile: a range that leaves the few largest entries out."""

import functools

import jax
import jax.numpy as jnp

from spartax import checks
from spartax.quantize.ranges import from_range, over_blocks, refuse_binary, refuse_fixed_step
from spartax.quantize.records import Calibration, Grid, Part, Scales
from spartax.records import Array


def percentile(percent: float = 99.9) -> Calibration:
    """The range that holds `percent` % of the magnitudes of a block (symmetric), or cuts the rest off at either end.

    Linear between the two nearest entries, as `numpy.percentile`; of a small block it is nearly the largest entry. What
    lies beyond gets the last code.

    Args:
      percent: above 50, up to 100, which is `absmax`.

    Raises:
      ValueError: a bad value; a grid whose step is fixed, or `binary`.
    """
    checks.in_range("percent", percent, 50, 100)
    return Calibration(frozenset(), functools.partial(_fit, float(percent)), _check)


def _check(grid: Grid) -> None:
    refuse_fixed_step("percentile()", grid)
    refuse_binary("percentile()", grid)


def _fit(percent: float, weight: Array, grid: Grid, part: Part) -> Scales:
    return _scales(weight, part.kept, grid, grid.scale_shape(weight.shape, part.layout), percent)


@jax.jit(static_argnums=(2, 3, 4))
def _scales(weight: Array, kept: Array | None, grid: Grid, shape: tuple[int, ...], percent: float) -> Scales:
    known = weight if kept is None else jnp.where(kept, weight, jnp.nan)

    def end(values: Array, share: float) -> Array:
        found = over_blocks(functools.partial(jnp.nanquantile, q=share), values, shape)
        return jnp.nan_to_num(found)  # a block that is masked altogether

    if grid.zero is None:
        most = end(jnp.abs(known), percent / 100)
        return from_range(-most, most, grid)
    return from_range(end(known, 1 - percent / 100), end(known, percent / 100), grid)
