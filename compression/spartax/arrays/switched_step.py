"""`SwitchedStep`: integers of 8 bits or fewer that share one learnt step, the quantizer of Double Rounding."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from spartax.arrays.double_rounded import DoubleRounded
from spartax.kernels.double_rounding import STORED, round_again, step_growth
from spartax.kernels.fake_rounding import fake_round
from spartax.records import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class SwitchedStep:
    """`round(round(clip(x / s, -128, 128 - 2^D)) / 2^D) 2^D s` with `D = 8 - bits`: what `DoubleRounded` keeps.

    Clipping first to what the width in use can hold gives the same numbers as clipping after each rounding. Derivatives
    are those of LSQ: straight through within these limits, and in the step `q - x / s` there, else q, for the integer q
    in units of s, over `sqrt(n (2^(bits - 1) - 1))`.

    Attributes:
      scale: s of 8 bits, float32, which is learnt; its sign is ignored; spreads over x.
      bits: width in use, int8, 2 to 8; spreads over x.
    """

    scale: Array
    bits: Array

    @property
    def step(self) -> Array:
        """Positive."""
        return jnp.where(self.scale == 0, 1.0, jnp.abs(self.scale))

    def __call__(self, x: Array, features: int) -> Array:
        """The rounded x, float32."""
        growth, most = step_growth(self.bits), 2 ** (STORED - 1)
        gain = lax.rsqrt(features * (most / growth - 1))
        code = lambda ratio: round_again(jnp.round(ratio), self.bits) * growth  # noqa: E731
        return fake_round(x, self.step, (-most, most - growth), gain, code)

    def store(self, weight: Array, kind: str) -> DoubleRounded:
        """The integers of 8 bits, and the width in use."""
        most = 2 ** (STORED - 1)
        codes = jnp.clip(jnp.round(weight.astype(jnp.float32) / self.step), -most, most - 1).astype(jnp.int8)
        return DoubleRounded(codes, self.step, self.bits, kind)
