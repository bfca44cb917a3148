"""The plain way: a scatter into the dense matrix."""

import jax.numpy as jnp
from jax import lax

from spartax.kernels import products
from spartax.kernels.nm_matmul.form import unpacked
from spartax.records import Array


def dense(values: Array, data: Array, m: int) -> Array:
    """The matrix `[groups * m, columns]`."""
    groups, columns = values.shape[1:]
    places = unpacked(data, m, groups).astype(jnp.int32)
    rows = jnp.arange(groups)[:, None] * m + places
    grid = jnp.zeros((groups * m, columns), values.dtype)
    return grid.at[rows, jnp.arange(columns)].set(values, unique_indices=True)


def matmul(x: Array, values: Array, data: Array, m: int, precision: lax.PrecisionLike, kind: jnp.dtype) -> Array:
    """`x @ dense`."""
    return products.matmul(x, dense(values, data, m), precision, kind)


def pullback(g: Array, values: Array, data: Array, m: int, precision: lax.PrecisionLike, kind: jnp.dtype) -> Array:
    """`g @ dense^T`."""
    return products.matmul(g, dense(values, data, m).T, precision, kind)
