"""Atomic feature mimicking: keep the directions that the outputs of a layer vary in, not those of its weight."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import lax

from spartax.lowrank.matrices import by_matrix, wide
from spartax.records import Array, Factorization


def atomic_features(centred: bool = False) -> Factorization:
    """`left = W U_k`, `right = U_k^T`: the outputs `y = x^T W` projected on their k principal components `U_k [O, k]`.

    `U_k` are the leading eigenvectors of `Cov(y) = W^T (E[x x^T] - E[x] E[x]^T) W`. With the mean of the outputs put
    back into the bias, `b + (I - U_k U_k^T) E[y]`, the expected squared error is the sum of the dropped eigenvalues;
    chain `sx.correct_bias()` after `lowrank.factorize` for that. Where nobody does, or the program adds no bias to the
    output, the components are those of `E[y y^T]`, the mean with them, unless `centred` says that the mean comes back
    in another way, as by batch statistics that are measured anew. From "Unified Low-rank Compression Framework for
    Click-through Rate Prediction" (S013; Atomic Feature Mimicking), where the means and moments of the outputs are
    collected; those of the inputs say the same. It is made for embedding tables, which `compress` takes where its
    `rule` says yes: their inputs are one-hot vectors, so that rows count by how often they are looked up. Tables of
    more than 8192 rows are refused.

    Args:
      centred: whether the components are those of the covariance everywhere.

    Raises:
      ValueError: at use, a rank above the number of directions that the outputs vary in on the calibration inputs.
    """
    return by_matrix(_split, frozenset({"moments", "means"}), span=_span)._replace(centred=centred)


def _split(matrix: Array, rank: int, statistics: Mapping[str, Array]) -> tuple[Array, Array]:
    matrix = wide(matrix)
    basis = jnp.linalg.eigh(_spread(matrix, statistics))[1][:, ::-1][:, :rank]
    return _dot(matrix, basis), basis.T


def _spread(matrix: Array, statistics: Mapping[str, Array]) -> Array:
    """The covariance of the outputs, `[*stack, O, O]`."""
    moments, mean = (statistics[need].astype(matrix.dtype) for need in ("moments", "means"))
    return _between(moments - mean[..., :, None] * mean[..., None, :], matrix)


@jax.jit
def _span(matrix: Array, statistics: Mapping[str, Array]) -> Array:
    """How many eigenvalues of the covariance stand above the rounding of the second moments it is a difference of."""
    matrix = wide(matrix)
    moments = statistics["moments"].astype(matrix.dtype)
    whole = jnp.linalg.eigvalsh(_between(moments, matrix))[..., -1:]
    alone = jnp.max(jnp.einsum("...ii,...io->...o", moments, jnp.square(matrix)), axis=-1, keepdims=True)
    noise = matrix.shape[-1] ** 0.5 * jnp.finfo(matrix.dtype).eps * (whole + alone)
    return jnp.sum(jnp.linalg.eigvalsh(_spread(matrix, statistics)) > noise, axis=-1)


def _between(moments: Array, matrix: Array) -> Array:
    return _dot(jnp.swapaxes(matrix, -1, -2), _dot(moments, matrix))


def _dot(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)
