"""Least squares: scales and codes by turns, each the best for the other."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from spartax import checks
from spartax.arrays.quantized import spread
from spartax.kernels import levels as number_formats
from spartax.quantize.calibrations.mse import cut
from spartax.quantize.codes import encode
from spartax.quantize.errors import block_errors
from spartax.quantize.ranges import over_blocks, refuse_fixed_step, stored_scale, stored_zero
from spartax.quantize.records import Calibration, Grid, Part, Scales
from spartax.records import Array


def least_squares(steps: int = 20) -> Calibration:
    """Scale (and zero point) that fit the codes best, then the nearest codes, and again: `min sum (w - s (c - z))**2`.

    For given codes the scale is `s = sum(w d) / sum(d d)` with `d = level(c) - z`, and the zero point that of the
    regression line of w on c. A block keeps the best it has seen, rounded as the grid stores it, and begins with the
    best cut of its range (`mse`), so it is never worse than that. On `binary` this is the mean magnitude.

    Args:
      steps: turns.

    Raises:
      ValueError: a bad value; a grid whose step is fixed.
    """
    checks.positive_int("steps", steps)
    return Calibration(frozenset(), functools.partial(_fit, steps), _check)


def _check(grid: Grid) -> None:
    refuse_fixed_step("least_squares()", grid)


def _fit(steps: int, weight: Array, grid: Grid, part: Part) -> Scales:
    return _scales(weight, part.kept, grid, grid.scale_shape(weight.shape, part.layout), steps)


@jax.jit(static_argnums=(2, 3, 4))
def _scales(weight: Array, kept: Array | None, grid: Grid, shape: tuple[int, ...], steps: int) -> Scales:
    def turn(_: Array, now: tuple[Scales, Array]) -> tuple[Scales, Array]:
        best, least = now
        new = _fitted(weight, encode(weight, best, grid), best, grid, kept)
        error = block_errors(weight, new, grid, kept)
        chosen = jax.tree.map(lambda a, b: jnp.where(error < least, a, b), new, best)
        return chosen, jnp.minimum(error, least)

    first = cut(weight, kept, grid, shape)
    return lax.fori_loop(0, steps, turn, (first, block_errors(weight, first, grid, kept)))[0]


def _fitted(weight: Array, codes: Array, old: Scales, grid: Grid, kept: Array | None) -> Scales:
    """The best scale of given codes, and the best zero point before it, both as they are stored."""
    levels = number_formats.decode(codes, grid.levels)
    total = lambda x: over_blocks(jnp.sum, x if kept is None else x * kept, old.scale.shape)  # noqa: E731
    zero = old.zero
    if zero is not None:
        zero = stored_zero(_crossing(weight, levels, total, zero), grid)
        levels = levels - spread(zero, levels.shape).astype(levels.dtype)
    scale = total(weight * levels) / total(levels * levels)
    now = number_formats.scale_values(old.scale).astype(scale.dtype)
    return Scales(stored_scale(jnp.where(scale > 0, scale, now), grid), zero)


def _crossing(weight: Array, levels: Array, total: Callable[[Array], Array], old: Array) -> Array:
    """The code at which the regression line of the weights on the levels is zero; the old one for a flat line."""
    count, codes, values = total(jnp.ones_like(weight)), total(levels), total(weight)
    slope = (count * total(weight * levels) - codes * values) / (count * total(levels * levels) - codes * codes)
    return jnp.where(slope > 0, (codes - values / slope) / count, old.astype(weight.dtype))
