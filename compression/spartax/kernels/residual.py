"""What the Pallas kernels share that start a sum with a low-rank term."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax

from spartax.records import Array


def first_sum(thin: Sequence[Any], total: Any, precision: lax.PrecisionLike) -> Array:
    """What a tile of the sum starts as: the product of the two thin tiles, or zeros where there are none."""
    if not thin:
        return jnp.zeros_like(total)
    left, right = thin
    return jnp.dot(left[...], right[...], precision=precision, preferred_element_type=total.dtype)


def padded_rows(x: Array, rows: int) -> Array:
    """`[B, r]` with zeros below, `[rows, r]`."""
    return jnp.pad(x, ((0, rows - x.shape[0]), (0, 0)))
