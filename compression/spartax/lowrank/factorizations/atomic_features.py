"""Atomic feature mimicking: keep the directions that the outputs of a layer vary in, not those of its weight."""

from collections.abc import Mapping

import jax.numpy as jnp
from jax import lax

from spartax.lowrank.matrices import by_matrix, wide
from spartax.records import Array, Factorization


def atomic_features() -> Factorization:
    """`left = W U_k`, `right = U_k^T`: the outputs `y = x^T W` projected on their k principal components `U_k [O, k]`.

    `U_k` are the leading eigenvectors of `Cov(y) = W^T (E[x x^T] - E[x] E[x]^T) W`. With the mean of the outputs put
    back into the bias, `b + (I - U_k U_k^T) E[y]`, the expected squared error is the sum of the dropped eigenvalues;
    chain `sx.correct_bias()` after `lowrank.factorize` for that. From "Unified Low-rank Compression Framework for
    Click-through Rate Prediction" (S013; Atomic Feature Mimicking), where the means and moments of the outputs are
    collected; those of the inputs say the same.
    """
    return by_matrix(_split, frozenset({"moments", "means"}))


def _split(matrix: Array, rank: int, statistics: Mapping[str, Array]) -> tuple[Array, Array]:
    matrix = wide(matrix)
    dot = lambda a, b: jnp.matmul(a, b, precision=lax.Precision.HIGHEST)  # noqa: E731
    moments, mean = (statistics[need].astype(matrix.dtype) for need in ("moments", "means"))
    spread = dot(matrix.T, dot(moments - jnp.outer(mean, mean), matrix))
    basis = jnp.linalg.eigh(spread)[1][:, ::-1][:, :rank]
    return dot(matrix, basis), basis.T
