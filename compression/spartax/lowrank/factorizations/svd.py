"""Truncated singular value decomposition: the nearest matrix of a given rank."""

from collections.abc import Mapping

from spartax.lowrank.matrices import by_matrix, truncated, wide
from spartax.records import Array, Factorization


def svd() -> Factorization:
    """`left = U_r sqrt(S_r) [m, r]`, `right = sqrt(S_r) V_r^T [r, n]`: least Frobenius error of all rank-r matrices.

    The error is `sqrt(sum of sigma_i^2 over i > r)` (Eckart and Young, 1936). Both factors get the root of the singular
    values, so that their entries are of one size, which helps training and quantization. In float32 at least. Of a
    convolution kernel `[H, W, I, O]` it is the channel decomposition: a thin convolution, then a 1 x 1 one.
    """
    return by_matrix(_split)


def _split(matrix: Array, rank: int, statistics: Mapping[str, Array]) -> tuple[Array, Array]:
    del statistics
    return truncated(wide(matrix), rank)
