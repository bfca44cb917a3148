"""MSE: the range of a block, cut where its whole error is least."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from spartax import checks
from spartax.quantize.errors import block_errors
from spartax.quantize.ranges import block_range, from_range, refuse_fixed_step
from spartax.quantize.records import Calibration, Grid, Part, Scales
from spartax.records import Array


def mse(power: float = 2.0, shares: int = 80) -> Calibration:
    """The range `share * [lo, hi]` whose codes are off least: `min over share of sum |w - q(w)|**power` in each block.

    Shares are `1 - i / 100` for `i < shares`, and the widest of equals wins, so that no block is worse than under
    `absmax`. With power 2.4 it is the search of GPTQ's public code (arXiv 2210.17323).

    Args:
      power: of the error; 2 is the mean squared error, more looks more at the largest errors.
      shares: how many are tried, 1 to 100.

    Raises:
      ValueError: a bad value; a grid whose step is fixed.
    """
    checks.in_range("power", power, 0.1, 16.0)
    checks.positive_int("shares", shares)
    checks.in_range("shares", shares, 1, 100)
    return Calibration(frozenset(), functools.partial(_fit, float(power), shares), _check)


def _check(grid: Grid) -> None:
    refuse_fixed_step("mse()", grid)


def _fit(power: float, shares: int, weight: Array, grid: Grid, part: Part) -> Scales:
    return cut(weight, part.kept, grid, grid.scale_shape(weight.shape, part.layout), power, shares)


@jax.jit(static_argnums=(2, 3, 4, 5))
def cut(
    weight: Array, kept: Array | None, grid: Grid, shape: tuple[int, ...], power: float = 2.0, shares: int = 80
) -> Scales:
    """The scales of the best shares of the ranges of all blocks."""
    low, high = block_range(weight, kept, grid, shape)

    errors = lambda scales: block_errors(weight, scales, grid, kept, power)  # noqa: E731
    return best_cut(low, high, grid, shares, 100, errors)


def best_cut(low: Array, high: Array, grid: Grid, shares: int, parts: int, errors: Callable[[Scales], Array]) -> Scales:
    """The scales of the shares `1 - i / parts` of all ranges, `i < shares`, with the least errors of their blocks."""

    def look(i: Array, best: tuple[Array, Array]) -> tuple[Array, Array]:
        share = (1 - i / parts).astype(low.dtype)
        error = errors(from_range(share * low, share * high, grid))
        return jnp.where(error < best[0], error, best[0]), jnp.where(error < best[0], share, best[1])

    first = jnp.full(low.shape, jnp.inf, low.dtype), jnp.ones_like(low)
    _, share = lax.fori_loop(0, shares, look, first)
    return from_range(share * low, share * high, grid)
