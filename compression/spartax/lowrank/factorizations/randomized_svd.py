"""Randomized singular value decomposition, for matrices too large for the exact one."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import lax

from spartax import checks
from spartax.lowrank.matrices import by_matrix, truncated, wide
from spartax.records import Array, Factorization


def randomized_svd(oversample: int = 8, power: int = 2) -> Factorization:
    """The SVD of the part of a matrix `W [m, n]` that a random sketch of `rank + oversample` columns sees.

    `Q` = orthonormal basis of `(W W^T)^power W G`, `G [n, rank + oversample]` Gaussian; the factors are those of
    `Q (Q^T W)`. Costs `O(m n rank)` in place of `O(m n min(m, n))`; the error is above that of `lowrank.svd()` by a
    factor that shrinks exponentially in `power` where the spectrum decays (Halko, Martinsson and Tropp, arXiv
    0909.4061). Draws from `evidence.key`, folded with the path of the weight.

    Args:
      oversample: columns beyond the rank.
      power: power iterations, with an orthonormalization after each product.

    Raises:
      ValueError: `oversample` or `power` is negative.
    """
    checks.positive_int("oversample", oversample, least=0)
    checks.positive_int("power", power, least=0)

    def split(matrix: Array, rank: int, statistics: Mapping[str, Array]) -> tuple[Array, Array]:
        matrix = wide(matrix)
        width = min(rank + oversample, *matrix.shape)
        dot = lambda a, b: jnp.matmul(a, b, precision=lax.Precision.HIGHEST)  # noqa: E731
        basis = dot(matrix, jax.random.normal(statistics["key"], (matrix.shape[1], width), matrix.dtype))
        basis = jnp.linalg.qr(basis)[0]
        for _ in range(power):
            basis = jnp.linalg.qr(dot(matrix, jnp.linalg.qr(dot(matrix.T, basis))[0]))[0]
        left, right = truncated(dot(basis.T, matrix), rank)
        return dot(basis, left), right

    return by_matrix(split, frozenset({"key"}), nested=False)
