"""The product in plain XLA: the matrix is expanded by comparisons, which fuse into one pass, then one dot."""

import jax.numpy as jnp
from jax import lax

from spartax.kernels import products
from spartax.kernels.nm_matmul.form import expanded, unpacked
from spartax.records import Array


def matmul(x: Array, values: Array, data: Array, m: int, precision: lax.PrecisionLike, kind: jnp.dtype) -> Array:
    """`x [B, groups * m]` times the matrix -> `[B, columns]` of dtype `kind`."""
    matrix = expanded(values, unpacked(data, m, values.shape[1]), m)
    return products.matmul(x, matrix, precision, kind)


def pullback(g: Array, values: Array, data: Array, m: int, precision: lax.PrecisionLike, kind: jnp.dtype) -> Array:
    """`g [B, columns]` times the transposed matrix -> `[B, groups * m]`."""
    matrix = expanded(values, unpacked(data, m, values.shape[1]), m)
    return products.matmul(g, matrix.T, precision, kind)
