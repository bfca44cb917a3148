"""The singular value decomposition by way of the Gram matrix, for many large matrices."""

from collections.abc import Mapping

import jax.numpy as jnp
from jax import lax

from spartax.lowrank.matrices import by_matrix, wide
from spartax.records import Array, Factorization


def gram_svd() -> Factorization:
    """`lowrank.svd()` from the eigenvectors of `W W^T` or `W^T W`, whichever is smaller.

    With the leading eigenvectors `U_r` of `W W^T [m, m]`, the factors are `U_r` and `U_r^T W`, their size shared evenly
    (the same on the other side where n is smaller): a product of matrices and a symmetric eigenproblem in place of a
    bidiagonalization. `U_r` is orthonormal to rounding, so that the full rank is exact. Directions whose singular value
    is below about the root of the machine epsilon times the largest (3e-4 in float32) are not told apart.
    """
    return by_matrix(_split)


def _split(matrix: Array, rank: int, statistics: Mapping[str, Array]) -> tuple[Array, Array]:
    matrix = wide(matrix)
    if matrix.shape[0] > matrix.shape[1]:
        left, right = _split(matrix.T, rank, statistics)
        return right.T, left.T
    dot = lambda a, b: jnp.matmul(a, b, precision=lax.Precision.HIGHEST)  # noqa: E731
    basis = jnp.linalg.eigh(dot(matrix, matrix.T))[1][:, ::-1][:, :rank]
    rest = dot(basis.T, matrix)
    root = jnp.maximum(jnp.sqrt(jnp.linalg.norm(rest, axis=1)), jnp.finfo(matrix.dtype).tiny ** 0.5)
    return basis * root, rest / root[:, None]
