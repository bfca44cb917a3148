"""Rounding for training: values on a grid, with derivatives that go straight through."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax

from spartax.kernels.derivatives import with_derivative_of
from spartax.records import Array


def fake_round(
    x: Array,
    step: Array,
    limits: tuple[Array | int, Array | int],
    gain: Array | float,
    code: Callable[[Array], Array] = jnp.round,
) -> Array:
    """`code(clip(x / step, low, high)) * step`, float32, with the derivatives of LSQ (arXiv 1902.08153).

    With `r = x / step` and `q` its code: in x the derivative is 1 where `low < r < high`, else 0; in the step it is
    `gain * (q - r)` there, else `gain * q`.

    Args:
      x: floats of any shape.
      step: positive, spreads over x.
      limits: smallest and largest code, low and high.
      gain: factor of the gradient of the step, `1 / sqrt(n high)` in LSQ for n entries that share it.
      code: integer of a number that lies within the limits.
    """
    low, high = limits
    wide = x.astype(jnp.float32)
    ratio = lax.stop_gradient(wide / step)
    codes = code(jnp.clip(ratio, low, high))
    inside = (ratio > low) & (ratio < high)
    slope = gain * jnp.where(inside, codes - ratio, codes)
    return with_derivative_of(jnp.where(inside, wide, 0) + slope * step, codes * step)
