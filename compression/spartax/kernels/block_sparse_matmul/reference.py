"""The plain way: the dense matrix, block by block."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from spartax.kernels import products
from spartax.kernels.block_sparse_matmul.structure import Structure
from spartax.records import Array


@functools.partial(jax.jit, static_argnums=2)
def dense(values: Array, structure: Structure, rows: int) -> Array:
    """The matrix `[rows * r, columns * c]` of blocks `[n, r, c]`, zero where no block is stored."""
    n, r, c = values.shape
    columns = structure.counts.shape[0]
    where = jnp.full((rows, columns), n).at[structure.rows.astype(jnp.int32), structure.columns].set(jnp.arange(n))
    grid = jnp.concatenate([values, jnp.zeros((1, r, c), values.dtype)])[where]  # a gather moves whole blocks
    return jnp.swapaxes(grid, 1, 2).reshape(rows * r, columns * c)


def matmul(x: Array, values: Array, structure: Structure, precision: lax.PrecisionLike, kind: jnp.dtype) -> Array:
    """`x @ dense`."""
    matrix = dense(values, structure, x.shape[1] // values.shape[1])
    return products.matmul(x, matrix, precision, kind)


def sampled(x: Array, g: Array, structure: Structure, block: tuple[int, int], precision: lax.PrecisionLike) -> Array:
    """The blocks of `x^T @ g` that are stored, `[n, r, c]`."""
    product = products.matmul(x.T, g, precision, jnp.promote_types(x.dtype, g.dtype))
    grid = product.reshape(-1, block[0], product.shape[1] // block[1], block[1])
    return jax.vmap(lambda i, j: grid[i, :, j])(structure.rows.astype(jnp.int32), structure.columns)
