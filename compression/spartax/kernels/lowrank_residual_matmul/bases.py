"""The forms of `W` beside a low-rank term: each with its own product `x W`, and its matrix `[K, O]`."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from spartax.kernels import products
from spartax.kernels.block_sparse_matmul import Structure, block_sparse_matmul
from spartax.kernels.block_sparse_matmul import reference as blocks_reference
from spartax.kernels.nm_matmul import nm_matmul
from spartax.kernels.nm_matmul import reference as groups_reference
from spartax.kernels.quantized_matmul import Form, quantized_matmul
from spartax.kernels.quantized_matmul import reference as codes_reference
from spartax.records import Array


class Dense(NamedTuple):
    """A matrix `[K, O]` as it is."""

    matrix: Array

    def product(self, x: Array, path: str, precision: lax.PrecisionLike) -> Array:
        """`x W`."""
        kind = jnp.promote_types(x.dtype, jnp.float32)
        return products.matmul(x, self.matrix.astype(x.dtype), precision, kind)

    def dense(self, rows: int) -> Array:
        """`W`."""
        return self.matrix


class Codes(NamedTuple):
    """Codes and scales, as `quantized_matmul` takes them."""

    data: Array
    scale: Array
    zero: Array | None
    form: Form

    def product(self, x: Array, path: str, precision: lax.PrecisionLike) -> Array:
        """`x W`; the precision is that of the context."""
        return quantized_matmul(x, *self, path=path)

    def dense(self, rows: int) -> Array:
        """`W`."""
        return codes_reference.weight(*self).T


class Groups(NamedTuple):
    """`n` values of every `m`, as `nm_matmul` takes them."""

    values: Array
    data: Array
    m: int

    def product(self, x: Array, path: str, precision: lax.PrecisionLike) -> Array:
        """`x W`."""
        return nm_matmul(x, *self, path=path, precision=precision)

    def dense(self, rows: int) -> Array:
        """`W`."""
        return groups_reference.dense(*self)


class Blocks(NamedTuple):
    """Stored blocks, as `block_sparse_matmul` takes them."""

    values: Array
    structure: Structure

    def product(self, x: Array, path: str, precision: lax.PrecisionLike) -> Array:
        """`x W`."""
        return block_sparse_matmul(x, *self, path=path, precision=precision)

    def dense(self, rows: int) -> Array:
        """`W`, which has this many rows."""
        return blocks_reference.dense(*self, rows // self.values.shape[1])


Base = Dense | Codes | Groups | Blocks
