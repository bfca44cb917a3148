"""Double rounding: integers of 8 bits, rounded again to fewer."""

import jax.numpy as jnp

from spartax.kernels.words import power_of_two
from spartax.records import Array

STORED = 8  # bits of the integers that all others are cut from


def round_again(codes: Array, bits: Array) -> Array:
    """`clip(round(codes / 2^(8 - bits)), -2^(bits - 1), 2^(bits - 1) - 1)`, float32; halves go to the even integer.

    Truncation, which is what a shift does, would pull every number down by half a step.

    Args:
      codes: integers of 8 bits, of any dtype.
      bits: 2 to 8, integers that spread over the codes.
    """
    bits = bits.astype(jnp.int32)
    half = power_of_two(bits - 1)
    return jnp.clip(jnp.round(codes.astype(jnp.float32) * power_of_two(bits - STORED)), -half, half - 1)


def step_growth(bits: Array) -> Array:
    """`2^(8 - bits)`, float32: how much longer the step of the second rounding is."""
    return power_of_two(STORED - bits.astype(jnp.int32))
