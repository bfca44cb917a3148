"""`FixedPoint`: words of a few bits with a binary point, the quantizer of QFX and AdaPT."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from spartax.arrays.packed import pack_codes
from spartax.arrays.quantized import Quantized
from spartax.arrays.sum import Sum
from spartax.kernels import words
from spartax.kernels.derivatives import with_derivative_of
from spartax.kernels.fake_rounding import fake_round
from spartax.records import Array

FARTHEST = 126  # a learnt point stays within [-126, 126], where its step is a normal number of float32


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class FixedPoint:
    """`clip(round(x 2^f), -2^(b-1), 2^(b-1) - 1) 2^-f`: b bits with the sign, f of them behind the point; saturates.

    Attributes:
      bits: b, int32, 2 to 32; spreads over x. An array, so that it may change without retracing.
      point: f. Float32: learnt, and rounded to an integer with the derivative of a step `2^-f`, as in LSQ; it is kept
        within [-126, 126]. Int32: given from outside.
      rounding: of `kernels.words.ROUNDINGS`.
      k_hot: how many leading ones of a word are kept, so that K shifts multiply by it; None: all.
    """

    bits: Array
    point: Array
    rounding: str = dataclasses.field(default="even", metadata={"static": True})
    k_hot: int | None = dataclasses.field(default=None, metadata={"static": True})

    @property
    def fraction(self) -> Array:
        """The f as it is now, int32."""
        if jnp.issubdtype(self.point.dtype, jnp.integer):
            return self.point
        return jnp.clip(jnp.round(self.point), -FARTHEST, FARTHEST).astype(jnp.int32)

    @property
    def limits(self) -> tuple[Array, Array]:
        """Smallest and largest word, as floats."""
        half = words.power_of_two(self.bits - 1)
        return -half, half - 1

    def __call__(self, x: Array, features: int) -> Array:
        """The rounded x; the gradient of f is scaled by `1 / sqrt(features 2^(b-1))`."""
        step, (low, high) = words.power_of_two(-self.fraction), self.limits
        if jnp.issubdtype(self.point.dtype, jnp.floating):
            step = with_derivative_of(lax.stop_gradient(-math.log(2) * step) * self.point, step)
        return fake_round(x, step, (low, high), lax.rsqrt(features * -low), self._code)

    def _code(self, ratio: Array) -> Array:
        code = words.ROUNDINGS[self.rounding](ratio)
        return code if self.k_hot is None else words.leading_ones(code, self.k_hot)

    def store(self, weight: Array, kind: str) -> Any:
        """Words of up to 8 bits as they are, up to 16 bits as two bytes; the rounded floats above. Not under `jit`."""
        bits = max(int(jnp.max(self.bits)), 2)
        step, limits = words.power_of_two(-self.fraction), self.limits
        code = self._code(jnp.clip(weight.astype(jnp.float32) / step, *limits))
        if bits > 16:
            return (code * step).astype(kind)
        step, code = jnp.broadcast_to(step, (1,) * (weight.ndim - step.ndim) + step.shape), code.astype(jnp.int32)
        if bits <= 8:
            codes = code.astype(jnp.int8)
            return Quantized(codes if bits == 8 else pack_codes(codes, bits, -(2 ** (bits - 1))), step, None, kind)
        upper, lower = (code >> 8).astype(jnp.int8), ((code & 255) - 128).astype(jnp.int8)
        zero = jnp.full(step.shape, -128, jnp.int8)
        return Sum((Quantized(upper, 256 * step, None, kind), Quantized(lower, step, zero, kind)))


def point_for(largest: Array, bits: Array | int) -> Array:
    """The f with which words of b bits just reach a number: `b - 1 - ceil(log2(largest))`, int32; b - 1 for 0."""
    mantissa, exponent = jnp.frexp(largest.astype(jnp.float32))
    return jnp.where(largest > 0, bits - 1 - (exponent - (mantissa == 0.5)), bits - 1).astype(jnp.int32)
