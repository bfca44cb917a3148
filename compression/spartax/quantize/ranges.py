"""From ranges of numbers to the scales of any grid, as they are stored."""

from collections.abc import Callable

import jax.numpy as jnp

from spartax.arrays import quantized
from spartax.kernels import levels as number_formats
from spartax.quantize.records import Grid, Scales
from spartax.records import Array


def over_blocks(reduce: Callable[..., Array], weight: Array, scale_shape: tuple[int, ...]) -> Array:
    """`reduce(x, axis=...)` (such as `jnp.max`) over every block: weight `[...]` -> `scale_shape`."""
    split = weight.reshape(quantized.blocks(weight.shape, scale_shape))
    return reduce(split, axis=tuple(range(1, split.ndim, 2)))


def block_range(weight: Array, kept: Array | None, grid: Grid, scale_shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Smallest and largest entry of every block; where the zero point is a float, of its kept entries only."""
    if kept is None or grid.zero in (None, "int8"):  # the zeros of a mask do not widen a range that holds zero
        return over_blocks(jnp.min, weight, scale_shape), over_blocks(jnp.max, weight, scale_shape)
    low = over_blocks(jnp.min, jnp.where(kept, weight, jnp.inf), scale_shape)
    high = over_blocks(jnp.max, jnp.where(kept, weight, -jnp.inf), scale_shape)
    return jnp.where(low <= high, low, 0), jnp.where(low <= high, high, 0)


def refuse_fixed_step(name: str, grid: Grid) -> None:
    """The check of a calibration that chooses scales: a grid with a step of its own has none to choose."""
    if grid.step is not None:
        raise ValueError(f"calibration must be absmax() or left out for fixed_point(), which has its step; got {name}.")


def refuse_binary(name: str, grid: Grid) -> None:
    """The check of a calibration that reaches for large entries: with one magnitude that is worse than all zeros."""
    if grid.levels == "binary":
        raise ValueError(f"calibration must be least_squares(), mse() or left out for binary(); got {name}.")


def from_range(low: Array, high: Array, grid: Grid) -> Scales:
    """The scales whose codes reach from `low` to `high`, one of each a block.

    Symmetric: `scale = max(|low|, |high|) / grid.largest`, a shared exponent that of its power of two. With zero
    points: `scale = (high - low) / (codes - 1)`, `zero = first code - low / scale`; an int8 zero point is rounded, and
    the range widened to hold zero first, so that zero is a code. A grid with a step of its own keeps it.
    """
    if grid.step is not None:
        return Scales(jnp.full(low.shape, grid.step, grid.scale_dtype), None)
    if grid.zero is None:
        return Scales(_reaching(jnp.maximum(jnp.abs(low), jnp.abs(high)), grid), None)
    if grid.zero == "int8":
        low, high = jnp.minimum(low, 0), jnp.maximum(high, 0)
    least, most = grid.codes
    scale = stored_scale((high - low) / (most - least), grid)
    return Scales(scale, stored_zero(least - low / scale.astype(low.dtype), grid))


def _reaching(largest: Array, grid: Grid) -> Array:
    if grid.scale_dtype == "uint8":
        return number_formats.shared_exponent(largest, grid.levels)
    return stored_scale(largest / grid.largest, grid)


def stored_scale(scale: Array, grid: Grid) -> Array:
    """Scales as the grid keeps them: floats saturate, shared exponents are those of the nearest power of two.

    A scale of zero (a block of zeros) becomes 1, or stays 0 where the grid has no zero; a positive one stays positive.
    """
    if grid.scale_dtype == "uint8":
        return number_formats.nearest_exponent(scale)
    limits = jnp.finfo(grid.scale_dtype)
    kept = jnp.clip(scale, float(limits.smallest_subnormal), float(limits.max)).astype(grid.scale_dtype)
    empty = jnp.zeros_like(kept) if grid.levels == "binary" else jnp.ones_like(kept)
    return jnp.where(scale > 0, kept, empty)


def stored_zero(zero: Array, grid: Grid) -> Array:
    """Zero points as the grid keeps them: int8 ones are rounded and lie inside the codes, floats saturate."""
    if grid.zero == "int8":
        return jnp.clip(jnp.round(zero), *grid.codes).astype(jnp.int8)
    most = float(jnp.finfo(grid.zero).max)
    return jnp.clip(zero, -most, most).astype(grid.zero)
