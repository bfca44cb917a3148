"""A matrix of activations times a block-sparse matrix: one file per path."""

from spartax.kernels.block_sparse_matmul.matmul import block_sparse_matmul
from spartax.kernels.block_sparse_matmul.structure import Structure, transposed

__all__ = ["Structure", "block_sparse_matmul", "transposed"]
