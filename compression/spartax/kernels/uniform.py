"""Activations as integer codes, `x ~ (code - zero) * scale`, with a straight-through derivative."""

from typing import NamedTuple

import jax.numpy as jnp

from spartax.kernels.derivatives import with_derivative_of
from spartax.records import Array

BITS = (2, 3, 4, 5, 6, 7, 8)


class Uniform(NamedTuple):
    """Which integers are codes.

    Attributes:
      bits: 2 to 8.
      symmetric: whether zero is code 0, the codes then lying in `+-(2**(bits-1) - 1)`; else all `2**bits` codes from
        `-2**(bits-1)` on are used, and one of them, the zero point, is the number zero.
    """

    bits: int = 8
    symmetric: bool = True

    @property
    def codes(self) -> tuple[int, int]:
        """Smallest and largest code."""
        half = 2 ** (self.bits - 1)
        return (1 - half if self.symmetric else -half), half - 1

    def fit(self, low: Array, high: Array) -> tuple[Array, Array | None]:
        """Scale and zero point (None if symmetric) of the range from `low <= 0` to `high >= 0`.

        The scale is 1 if the range is empty, at least the smallest normal number, and not finite if the range is not.

        Symmetric: `scale = max(-low, high) / (2**(bits-1) - 1)`. Asymmetric: `scale = (high - low) / (2**bits - 1)`,
        `zero = round(-low / scale)` counted from the smallest code.
        """
        least, most = self.codes

        def steps(width: Array, count: int) -> Array:
            return jnp.where(width == 0, jnp.ones_like(width), jnp.maximum(width / count, jnp.finfo(width.dtype).tiny))

        if self.symmetric:
            return steps(jnp.maximum(-low, high), most), None
        scale = steps(high - low, most - least)
        return scale, least + jnp.round(-low / scale)

    def encode(self, x: Array, scale: Array, zero: Array | None) -> Array:
        """Codes as floats, halves to even.

        The derivative is that of `x / scale` where the code is not clipped, zero where it is: `decode` of it has the
        gradient 1 or 0 in x, and in the scale that of LSQ (Esser et al., arXiv 1902.08153).
        """
        least, most = self.codes
        steps = x / scale
        codes = with_derivative_of(steps, jnp.round(steps))
        codes = codes if zero is None else codes + zero
        return jnp.where(codes < least, least, jnp.where(codes > most, most, codes)).astype(x.dtype)

    def decode(self, codes: Array, scale: Array, zero: Array | None) -> Array:
        """The numbers that codes stand for."""
        return (codes if zero is None else codes - zero) * scale
