"""`LearntClip`: activations cut at a learnt value and rounded, the quantizer of PACT."""

import dataclasses

import jax
import jax.numpy as jnp

from spartax.kernels.derivatives import with_derivative_of
from spartax.records import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class LearntClip:
    """`round(clip(x, 0, alpha) / s) * s` with `s = alpha / (2**bits - 1)`, which is for activations behind a ReLU.

    The derivative in x is 1 for `0 < x < alpha`, else 0; in alpha it is 1 for `x >= alpha`, else 0.

    Attributes:
      alpha: positive float32, spreads over x.
      bits: 1 to 8.
    """

    alpha: Array
    bits: int = dataclasses.field(metadata={"static": True})

    def __call__(self, x: Array, features: int) -> Array:
        """The rounded x; the gradient of alpha is not scaled."""
        del features
        x, alpha = x.astype(jnp.float32), jnp.maximum(self.alpha, jnp.finfo(jnp.float32).tiny)
        step = alpha / (2**self.bits - 1)
        clipped = jnp.where(x >= alpha, alpha, jax.nn.relu(x))
        return with_derivative_of(clipped, jnp.round(clipped / step) * step)
