"""HQQ: zero points for an error in which outliers weigh little."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from spartax import checks
from spartax.arrays.quantized import spread
from spartax.quantize.codes import decode, encode
from spartax.quantize.ranges import block_range, from_range, over_blocks, stored_zero
from spartax.quantize.records import Calibration, Grid, Part, Scales
from spartax.records import Array


class Options(NamedTuple):
    """Of the half-quadratic splitting: norm p, penalty beta and its growth, and most steps."""

    norm: float
    beta: float
    growth: float
    steps: int


def hqq(norm: float = 0.7, beta: float = 10.0, growth: float = 1.01, steps: int = 20) -> Calibration:
    """Scales of the whole range, and zero points found by half-quadratic splitting; needs no data.

    With `r` the weight at its codes q: `e = shrink(w - r)`, `z = mean over the block of (q - (w - e) / scale)`, for
    `shrink(x) = sign(x) max(|x| - |x|**(norm - 1) / beta, 0)` and beta growing by `growth` each step (HQQ,
    https://mobiusml.github.io/hqq_blog). Stops when the mean of `|w - r|` over the array no longer falls, and keeps the
    zero points at which it was least, those of `absmax` included. It lowers that error, not the mean square.

    Args:
      norm: p in (0, 1].
      beta: first penalty.
      growth: its factor each step, at least 1.
      steps: most zero points that are tried.

    Raises:
      ValueError: a bad value; a grid other than `integer(symmetric=False)`. Float zero points (`zero_dtype="float16"`)
        are what the method is for; int8 ones are rounded at every step and move little.
    """
    checks.in_range("norm", norm, 1e-3, 1.0)
    checks.in_range("beta", beta, 1e-6, 1e9)
    checks.in_range("growth", growth, 1.0, 100.0)
    checks.positive_int("steps", steps)
    options = Options(float(norm), float(beta), float(growth), steps)
    return Calibration(frozenset(), functools.partial(_fit, options), _check)


def _check(grid: Grid) -> None:
    if grid.zero is None:
        raise ValueError(
            "grid must have zero points for hqq(), such as integer(4, symmetric=False, zero_dtype='float16'); got one "
            f"of {grid.bits} bits and levels {grid.levels!r} without."
        )


def _fit(options: Options, weight: Array, grid: Grid, part: Part) -> Scales:
    return _scales(weight, part.kept, grid, grid.scale_shape(weight.shape, part.layout), options)


class _State(NamedTuple):
    """One step: the zero points to be judged, the best so far with their error, and whether the last ones were."""

    step: Array
    zero: Any
    best: Any
    least: Array
    falling: Array


@jax.jit(static_argnums=(2, 3, 4))
def _scales(weight: Array, kept: Array | None, grid: Grid, shape: tuple[int, ...], options: Options) -> Scales:
    scale, start = from_range(*block_range(weight, kept, grid, shape), grid)
    wide = spread(scale, weight.shape).astype(weight.dtype)
    counted = jnp.ones_like(weight) if kept is None else kept.astype(weight.dtype)
    count = over_blocks(jnp.sum, counted, shape)

    def turn(now: _State) -> _State:
        codes = encode(weight, Scales(scale, now.zero), grid)
        off = weight - decode(codes, Scales(scale, now.zero), grid)
        error = jnp.sum(jnp.abs(off) * counted) / jnp.sum(counted)
        falling = error < now.least
        target = weight - _shrink(off, options.norm, options.beta * options.growth**now.step)
        zero = over_blocks(jnp.sum, (codes - target / wide) * counted, shape) / count
        zero = stored_zero(jnp.where(count > 0, zero, now.zero), grid)
        best = jnp.where(falling, now.zero, now.best)
        return _State(now.step + 1, zero, best, jnp.where(falling, error, now.least), falling)

    first = _State(jnp.int32(0), start, start, jnp.asarray(jnp.inf, weight.dtype), jnp.bool_(True))
    last = lax.while_loop(lambda now: now.falling & (now.step < options.steps), turn, first)
    return Scales(scale, last.best)


def _shrink(x: Array, norm: float, beta: Array) -> Array:
    """The prox of `|x|**norm / beta`, to first order; 0 where x is 0."""
    size = jnp.abs(x)
    return jnp.sign(x) * jnp.maximum(size - jnp.where(size > 0, size, 1) ** (norm - 1) / beta, 0)
