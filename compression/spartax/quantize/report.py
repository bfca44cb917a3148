"""What `info` says of a quantized weight."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from spartax.arrays import Masked, Quantized, dense
from spartax.kernels import levels as number_formats
from spartax.quantize.records import Grid
from spartax.records import Array


class Sums(NamedTuple):
    """Squares of the errors and of the values of an array, and how many of its numbers saturate."""

    error: Array
    size: Array
    saturated: Array


@jax.jit(static_argnums=2)
def measure(leaf: Masked | Quantized, values: Array, grid: Grid) -> Sums:
    """The sums of one array and what it became."""
    error, size = (dense(leaf) - values).astype(jnp.float32), values.astype(jnp.float32)
    codes = leaf.weight if isinstance(leaf, Masked) else leaf
    return Sums(jnp.sum(error * error), jnp.sum(size * size), _saturated(codes.scale, error, grid))


def _saturated(scale: Array, error: Array, grid: Grid) -> Array:
    """Scales at the limit of their dtype or, where the step is fixed, entries off by more than half of it."""
    if grid.step is not None:
        return jnp.sum(jnp.abs(error) > 0.501 * grid.step)
    return jnp.sum(scale >= jnp.finfo(scale.dtype).max) if not number_formats.is_integer(scale) else jnp.int32(0)


def entry(sums: list[Sums], grid: Grid) -> dict[str, Any]:
    """The entry of one weight, all its arrays together; what saturates is a warning."""
    total = jax.tree.map(lambda *column: sum(float(x) for x in column), *sums)
    found = {
        "method": "quantize",
        "bits": grid.bits,
        "levels": grid.levels,
        "group": grid.group,
        "relative_error": (total.error / max(total.size, float(jnp.finfo(jnp.float32).tiny))) ** 0.5,
    }
    if total.saturated:
        what = "entries out of range" if grid.step is not None else f"scales beyond the range of {grid.scale_dtype}"
        found["warnings"] = [f"{total.saturated:.0f} {what} saturate"]
    return found
