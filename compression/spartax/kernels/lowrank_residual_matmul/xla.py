"""The sum of two products, which XLA joins as it can.

Adding the low-rank term to each block of outputs of a product with codes was measured on CPU and was not consistently
faster.
"""

from jax import lax

from spartax.kernels import products
from spartax.kernels.lowrank_residual_matmul.bases import Base
from spartax.records import Array


def matmul(x: Array, base: Base, t: Array, v: Array, path: str, precision: lax.PrecisionLike) -> Array:
    """`x W + t V`, the first product by its own path: x `[B, K]`, t `[B, r]`, V `[r, O]` -> `[B, O]`."""
    out = base.product(x, path, precision)
    return out + products.matmul(t, v, precision, out.dtype)
