"""`LearntStep`: integers times a learnt step, the quantizer of LSQ."""

import dataclasses

import jax
import jax.numpy as jnp

from spartax.arrays.packed import pack_codes
from spartax.arrays.quantized import Quantized
from spartax.kernels.fake_rounding import fake_round
from spartax.records import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class LearntStep:
    """`round(clip(x / s, low, high)) * s` with `s = |scale|`, which is learnt; codes are all `2**bits` integers.

    Attributes:
      scale: float32, spreads over x; where it is 0 (not calibrated yet) x passes as it is.
      bits: 2 to 8, from 1 on where codes begin at 0.
      unsigned: bool like the scale: whether codes begin at 0, not at `-2**(bits - 1)`; None: nowhere.
    """

    scale: Array
    bits: int = dataclasses.field(metadata={"static": True})
    unsigned: Array | None = None

    @property
    def limits(self) -> tuple[Array | int, Array | int]:
        """Smallest and largest code."""
        half = 2 ** (self.bits - 1)
        low = -half if self.unsigned is None else jnp.where(self.unsigned, 0, -half)
        return low, low + 2**self.bits - 1

    @property
    def step(self) -> Array:
        """Positive."""
        return jnp.where(self.scale == 0, 1.0, jnp.abs(self.scale))

    def __call__(self, x: Array, features: int) -> Array:
        """The rounded x, with the derivatives of LSQ."""
        gain = jax.lax.rsqrt(jnp.float32(features) * self.limits[1])
        return jnp.where(self.scale == 0, x, fake_round(x, self.step, self.limits, gain))

    def store(self, weight: Array, kind: str) -> Quantized:
        """The codes and the step, of signed codes."""
        half = 2 ** (self.bits - 1)
        codes = jnp.clip(jnp.round(weight.astype(jnp.float32) / self.step), -half, half - 1).astype(jnp.int8)
        return Quantized(codes if self.bits == 8 else pack_codes(codes, self.bits, -half), self.step, None, kind)


def first_step(size: Array, high: Array | int) -> Array:
    """`2 E|x| / sqrt(high)`, where LSQ begins; 1 for a block of zeros."""
    step = 2 * size.astype(jnp.float32) / jnp.sqrt(jnp.float32(high))
    return jnp.where(step > 0, step, 1.0)
