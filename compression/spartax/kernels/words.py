"""Fixed-point words: integers with a binary point, computed as hardware computes them.

A word `<b, f>` is an integer of b bits, sign included, that stands for `word * 2**-f`. Sums and products here are on
int32, exact as long as the words they give have at most 32 bits.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from spartax.records import Array


def _half_up(x: Array) -> Array:
    below = jnp.floor(x)
    return below + (x - below >= 0.5)  # x + 0.5 may itself be rounded


# Of a float to an integer: halves to even, halves up (RND of hardware tools), always down (TRN)
ROUNDINGS = {"even": jnp.round, "half_up": _half_up, "floor": jnp.floor}


class Words(NamedTuple):
    """Numbers in fixed point, `code * 2**-fraction`.

    Attributes:
      code: int32, in `[-2**(bits-1), 2**(bits-1) - 1]`.
      bits: width with the sign, 2 to 32.
      fraction: bits behind the point.
    """

    code: Array
    bits: int
    fraction: int


def power_of_two(exponent: Array) -> Array:
    """`2.0 ** exponent`, float32 and exact: int32 exponents in [-126, 127]."""
    return lax.bitcast_convert_type((exponent + 127) << 23, jnp.float32)


def leading_ones(code: Array, count: int) -> Array:
    """The words whose size keeps its `count` highest ones, the rest cut off: such numbers multiply by shifts alone.

    Args:
      code: integers below 2**31 in size, of any dtype.
      count: K of K-hot.
    """
    rest, kept = jnp.abs(code.astype(jnp.int32)), jnp.zeros(code.shape, jnp.int32)
    for _ in range(count):
        top = jnp.where(rest > 0, jnp.int32(1) << (31 - lax.clz(jnp.maximum(rest, 1))), 0)
        rest, kept = rest - top, kept + top
    return (jnp.sign(code).astype(jnp.int32) * kept).astype(code.dtype)


def add(a: Words, b: Words) -> Words:
    """The exact sum: points are aligned to the longer fraction, and the word grows by a bit."""
    fraction = max(a.fraction, b.fraction)
    shifts = [fraction - w.fraction for w in (a, b)]
    bits = max(w.bits + shift for w, shift in zip((a, b), shifts)) + 1
    _fits(bits)
    return Words((a.code << shifts[0]) + (b.code << shifts[1]), bits, fraction)


def multiply(a: Words, b: Words) -> Words:
    """The exact product, `<b1 + b2, f1 + f2>`."""
    _fits(a.bits + b.bits)
    return Words(a.code * b.code, a.bits + b.bits, a.fraction + b.fraction)


def shift_multiply(a: Words, b: Words, count: int) -> Words:
    """The product with words of which at most `count` bits are one, by shifts and sums alone."""
    _fits(a.bits + b.bits)
    rest, total = jnp.abs(b.code), jnp.zeros(jnp.broadcast_shapes(a.code.shape, b.code.shape), jnp.int32)
    for _ in range(count):
        place = 31 - lax.clz(jnp.maximum(rest, 1))
        total += jnp.where(rest > 0, a.code << place, 0)
        rest -= jnp.where(rest > 0, jnp.int32(1) << place, 0)
    return Words(jnp.where(b.code < 0, -total, total), a.bits + b.bits, a.fraction + b.fraction)


def requantize(x: Words, bits: int, fraction: int, rounding: str = "half_up") -> Words:
    """The nearest words `<bits, fraction>`; what is out of range saturates. All in integers."""
    low, high, drop = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1, x.fraction - fraction
    if drop <= 0:
        _fits(x.bits - drop)
        code = x.code << -drop
    else:
        code = _dropped(x.code, drop, rounding)
    return Words(jnp.clip(code, low, high), bits, fraction)


def _dropped(code: Array, drop: int, rounding: str) -> Array:
    """`code / 2**drop`, rounded."""
    if drop > 31:
        raise ValueError(f"fraction must be at most 31 bits shorter than it was; got {drop} fewer.")
    below, rest = code >> drop, code & jnp.int32((1 << drop) - 1)
    if rounding == "floor":
        return below
    half = jnp.int32(1 << (drop - 1))
    up = (rest >= half) if rounding == "half_up" else (rest > half) | ((rest == half) & (below & 1 == 1))
    return below + up.astype(jnp.int32)


def _fits(bits: int) -> None:
    if bits > 32:
        raise ValueError(f"words must have at most 32 bits; this gives {bits}: requantize before.")
