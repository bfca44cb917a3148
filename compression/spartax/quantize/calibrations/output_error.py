"""Output error: the range of a block, cut where the output of its layer is off least."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from spartax import checks
from spartax.arrays import rows
from spartax.quantize.calibrations.mse import best_cut
from spartax.quantize.codes import decode, encode
from spartax.quantize.ranges import block_range, over_blocks, refuse_fixed_step
from spartax.quantize.records import Calibration, Grid, Part, Scales
from spartax.quantize.roundings._layer import moments_of
from spartax.records import Array, Layout


def output_error(shares: int = 10) -> Calibration:
    """The range `share * [lo, hi]` of each block with the least `E (sum over the block of (w - q(w)) x)**2`.

    Shares are `1 - i / 20` for `i < shares`, and the widest of equals wins: in every block the error `d H d^T`, H the
    part of `E[x x^T]` that the block meets, is never above that of `absmax`. Where a row is one block this is the whole
    error of its output. It is the clipping of AWQ (arXiv 2306.00978): to clip after `quantize.awq`, call `compress` a
    second time, so that the batches go through the scaled network.

    Args:
      shares: how many are tried, 1 to 20; AWQ takes 10.

    Raises:
      ValueError: a bad value; a grid whose step is fixed; at use, moments that are missing, of another shape, not
        finite or zero, and a weight that is a sum or a product of arrays.
    """
    checks.positive_int("shares", shares)
    checks.in_range("shares", shares, 1, 20)
    return Calibration(frozenset({"moments"}), functools.partial(_fit, shares), _check)


def _check(grid: Grid) -> None:
    refuse_fixed_step("output_error()", grid)


def _fit(shares: int, weight: Array, grid: Grid, part: Part) -> Scales:
    return _cut(weight, part.kept, moments_of("output_error", weight, part), grid, part.layout, shares)


@jax.jit(static_argnums=(3, 4, 5))
def _cut(weight: Array, kept: Array | None, moments: Array, grid: Grid, layout: Layout, shares: int) -> Scales:
    shape = grid.scale_shape(weight.shape, layout)
    inputs, axis = moments.shape[-1], layout.inputs[-1]
    whole = all(shape[a] == 1 for a in layout.inputs)  # not so where a group holds all features of each tap
    size = inputs if whole else weight.shape[axis] // shape[axis]  # columns of a block
    met = _squares(moments.astype(weight.dtype), size)

    def errors(scales: Scales) -> Array:
        off = weight - decode(encode(weight, scales, grid), scales, grid).astype(weight.dtype)
        change = rows.to_rows(off if kept is None else off * kept, layout)
        split = change.reshape(*change.shape[:-1], inputs // size, size)
        passed = jnp.einsum("...ong,...ngh->...onh", split, met, precision=lax.Precision.HIGHEST)
        return over_blocks(jnp.sum, rows.from_rows((split * passed).reshape(change.shape), weight.shape, layout), shape)

    return best_cut(*block_range(weight, kept, grid, shape), grid, shares, 20, errors)


def _squares(moments: Array, size: int) -> Array:
    """The squares `[..., n, size, size]` along the diagonal of `[..., I, I]`."""
    count = moments.shape[-1] // size
    split = moments.reshape(*moments.shape[:-2], count, size, count, size)
    return jnp.moveaxis(jnp.diagonal(split, axis1=-4, axis2=-2), -1, -3)
