"""`Sign`: one bit for each number, the quantizer of ReSTE."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from spartax.arrays.packed import pack_codes
from spartax.arrays.quantized import Quantized
from spartax.kernels.derivatives import with_derivative_of
from spartax.records import Array

UNIT = 2**16  # of a power


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Sign:
    """`sign(x)`, times `E|x|` if `scaled`, with the derivative of `sign(x) |x|^(1/o)`; the sign of zero is +1.

    Attributes:
      power: o >= 1 in units of `2**-16`, int32, so that no optimizer moves it; spreads over x.
      scaled: whether numbers that share a power are multiplied by their mean size. Its derivative counts too. Zeros are
        left out of the mean: a mask around the weight puts them where nothing is kept.
    """

    power: Array
    scaled: bool = dataclasses.field(default=False, metadata={"static": True})

    def __call__(self, x: Array, features: int) -> Array:
        """The signs."""
        del features
        x = x.astype(jnp.float32)
        slope = lax.stop_gradient(estimator_slope(x, self.power / UNIT))
        signs = with_derivative_of(slope * x, jnp.where(x < 0, -1.0, 1.0))
        return signs * self._size(x) if self.scaled else signs

    def _size(self, x: Array) -> Array:
        axes = tuple(a for a, n in enumerate(self.power.shape) if n == 1)
        return jnp.sum(jnp.abs(x), axes, keepdims=True) / jnp.maximum(jnp.sum(x != 0, axes, keepdims=True), 1)

    def store(self, weight: Array, kind: str) -> Quantized:
        """One bit for each sign, and the mean sizes."""
        codes = pack_codes((weight >= 0).astype(jnp.int8), 1, 0)
        size = self._size(weight.astype(jnp.float32)) if self.scaled else jnp.ones((1,) * weight.ndim)
        return Quantized(codes, size, None, kind, "binary")


def estimator_slope(x: Array, o: Array | float, floor: float = 0.1, window: float = 1.5) -> Array:
    """Derivative of ReSTE's estimator: `(1/o) |x|^((1 - o)/o)` for `floor < |x| <= window`, 0 beyond.

    Up to the floor it is the slope of the chord there, `floor^(1/o) / floor`, since the derivative has no bound at 0.

    Args:
      x: floats of any shape.
      o: power, spreads over x; 1 gives the straight-through estimator.
      floor: m of the paper.
      window: t of the paper.
    """
    size = jnp.abs(x)
    near = jnp.power(floor, 1 / o) / floor
    far = jnp.power(jnp.maximum(size, floor), (1 - o) / o) / o
    return jnp.where(size <= floor, near, jnp.where(size <= window, far, 0))
