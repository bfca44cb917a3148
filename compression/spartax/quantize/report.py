"""What `info` says of a quantized weight."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from spartax.arrays import Masked, Quantized, dense
from spartax.kernels import levels as number_formats
from spartax.quantize.ranges import over_blocks
from spartax.quantize.records import Grid
from spartax.records import Array

LOST = 0.9  # relative error from which nothing is left to speak of


class Sums(NamedTuple):
    """Squares of the errors and of the values of an array, and how many of its numbers its grid cannot hold.

    Attributes:
      largest: the largest value; squares are those of values divided by it, so that none leaves the range of float32.
      error: squares of the errors.
      size: squares of the values.
      zero_blocks: blocks whose values are all zero.
      entries: off by more than half a step, where the step is fixed.
      large: scales at the limit of their dtype.
      small: scales of other blocks below the normal numbers of their dtype.
      zeros: float zero points at the limit of their dtype.
    """

    largest: Array
    error: Array
    size: Array
    zero_blocks: Array
    entries: Array
    large: Array
    small: Array
    zeros: Array


@jax.jit(static_argnums=2)
def measure(leaf: Masked | Quantized, values: Array, grid: Grid) -> Sums:
    """The sums of one array and what it became."""
    error, size = (dense(leaf) - values).astype(jnp.float32), values.astype(jnp.float32)
    codes = leaf.weight if isinstance(leaf, Masked) else leaf
    empty = over_blocks(jnp.max, jnp.abs(size), codes.scale.shape) == 0
    sums = squares(error, size)
    if grid.step is not None:
        return Sums(*sums, jnp.sum(empty), jnp.sum(jnp.abs(error) > 0.501 * grid.step), *jnp.zeros(3, jnp.int32))
    return Sums(*sums, jnp.sum(empty), jnp.int32(0), *_lost(codes, empty))


def squares(error: Array, values: Array, kept: Array | None = None) -> tuple[Array, Array, Array]:
    """`largest`, `error` and `size` of `Sums`, of the entries that are kept; float32."""
    largest = jnp.max(jnp.abs(values), initial=0, where=kept)
    share = jnp.where(largest > 0, largest, 1.0)
    return largest, jnp.sum((error / share) ** 2, where=kept), jnp.sum((values / share) ** 2, where=kept)


def relative(each: Iterable[tuple[Array, Array, Array]]) -> float:
    """`|errors| / |values|`, Frobenius norms over all arrays together, from the `squares` of each; 0 of zeros."""
    rows = [tuple(map(float, one)) for one in each]
    most = max(largest for largest, _, _ in rows) or 1.0
    error, size = (sum(row[i] * (row[0] / most) ** 2 for row in rows) for i in (1, 2))
    return (error / size) ** 0.5 if size else 0.0


def _lost(codes: Quantized, empty: Array) -> tuple[Array, Array, Array]:
    """How many scales are too large and too small for their dtype, and how many zero points too large."""
    large = small = zeros = jnp.int32(0)
    if not number_formats.is_integer(codes.scale):
        limits = jnp.finfo(codes.scale.dtype)
        large = jnp.sum(codes.scale >= limits.max)
        small = jnp.sum((codes.scale < limits.smallest_normal) & ~empty)
    if codes.zero is not None and not number_formats.is_integer(codes.zero):
        zeros = jnp.sum(jnp.abs(codes.zero) >= jnp.finfo(codes.zero.dtype).max)
    return large, small, zeros


def entry(sums: list[Sums], grid: Grid) -> dict[str, Any]:
    """The entry of one weight, all its arrays together; what is lost to the range of a dtype is a warning."""
    total = jax.tree.map(lambda *column: sum(float(x) for x in column), *sums)
    found = {
        "method": "quantize",
        "bits": grid.bits,
        "levels": grid.levels,
        "group": grid.group,
        "relative_error": relative((one.largest, one.error, one.size) for one in sums),
        "zero_blocks": int(total.zero_blocks),
    }
    counts = {
        "entries out of range saturate": total.entries,
        f"scales beyond the range of {grid.scale_dtype} saturate": total.large,
        f"scales below the normal numbers of {grid.scale_dtype} lose digits": total.small,
        f"zero points beyond the range of {grid.zero} saturate": total.zeros,
    }
    warnings = [f"{count:.0f} {what}" for what, count in counts.items() if count]
    if found["relative_error"] > LOST:
        warnings.append(f"{found['relative_error']:.0%} of the weight is lost: its numbers are not those of this grid")
    return found | ({"warnings": warnings} if warnings else {})
