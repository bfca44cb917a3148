"""Activation-weighted SVD: inputs that are large count more."""

from collections.abc import Mapping

import jax.numpy as jnp

from spartax import checks
from spartax.lowrank.matrices import by_matrix, truncated, wide
from spartax.records import Array, Factorization


def activation_weighted(alpha: float = 0.5) -> Factorization:
    """The truncated SVD of `diag(a) W`, `a_j = (E|x_j|)^alpha`, brought back by `diag(a)^-1`.

    ASVD (Yuan et al., arXiv 2312.05821). Cheaper in calibration than `lowrank.whitened()`, which takes the correlations
    of the inputs into account too and is never worse on the calibration data. An input that never fires gets the
    smallest weight of those that do.

    Args:
      alpha: 0 is the plain SVD.

    Raises:
      ValueError: `alpha` outside [0, 1].
    """
    checks.in_range("alpha", alpha, 0.0, 1.0)

    def split(matrix: Array, rank: int, statistics: Mapping[str, Array]) -> tuple[Array, Array]:
        matrix = wide(matrix)
        size = statistics["magnitudes"].astype(matrix.dtype)
        least = jnp.min(jnp.where(size > 0, size, jnp.inf))
        scale = jnp.power(jnp.where(jnp.isfinite(least), jnp.maximum(size, least), 1.0), alpha)[:, None]
        left, right = truncated(scale * matrix, rank)
        return left / scale, right

    return by_matrix(split, frozenset({"magnitudes"}))
