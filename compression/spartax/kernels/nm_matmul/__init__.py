"""A matrix of activations times an N:M sparse matrix: one file per path."""

from spartax.kernels.nm_matmul.matmul import nm_matmul

__all__ = ["nm_matmul"]
