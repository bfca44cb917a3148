"""Whitened SVD: least error of the layer's output on calibration data."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import lax

from spartax import checks
from spartax.lowrank.matrices import by_matrix, truncated, wide
from spartax.records import Array, Factorization


def whitened(damping: float = 0.0) -> Factorization:
    """The factors of `W [I, O]` that minimize `E |x^T (W - left right)|^2` over the calibration inputs `x`.

    With the second moments `E[x x^T] = S S^T`, it is the truncated SVD of `S^T W`, brought back by `S^-T`; the loss is
    exactly the sum of the dropped squared singular values. This is the truncation-aware whitening of SVD-LLM (Wang et
    al., arXiv 2403.07378) and, on a residual (`lowrank.compensate`), EoRA (S055; arXiv 2410.21271). `S = Q sqrt(L)`
    comes from an eigendecomposition, which unlike Cholesky's also serves moments of too few samples: eigenvalues are
    raised to `I * machine epsilon` times the largest, so that inputs which never fire cost nothing.

    Args:
      damping: this share of the mean eigenvalue is added to all of them, in [0, 1]; it pulls towards `lowrank.svd()`
        where calibration data are few.

    Raises:
      ValueError: `damping` outside [0, 1]; at use, without damping, a rank above the number of directions that the
        calibration inputs span.
    """
    checks.in_range("damping", damping, 0.0, 1.0)

    def split(matrix: Array, rank: int, statistics: Mapping[str, Array]) -> tuple[Array, Array]:
        matrix = wide(matrix)
        values, vectors = jnp.linalg.eigh(statistics["moments"].astype(matrix.dtype))
        values = values + damping * jnp.mean(values)
        root = jnp.sqrt(jnp.maximum(values, len(values) * jnp.finfo(matrix.dtype).eps * values[-1]))
        dot = lambda a, b: jnp.matmul(a, b, precision=lax.Precision.HIGHEST)  # noqa: E731
        left, right = truncated(root[:, None] * dot(vectors.T, matrix), rank)
        return dot(vectors, left / root[:, None]), right

    return by_matrix(split, frozenset({"moments"}), span=None if damping else _span)


@jax.jit
def _span(matrix: Array, statistics: Mapping[str, Array]) -> Array:
    """How many eigenvalues of the moments stand above the rounding of their largest."""
    del matrix
    values = jnp.linalg.eigvalsh(wide(statistics["moments"]))
    noise = values.shape[-1] ** 0.5 * jnp.finfo(values.dtype).eps
    return jnp.sum(values > noise * values[..., -1:], axis=-1)
