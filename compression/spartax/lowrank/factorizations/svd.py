"""Truncated singular value decomposition: the nearest matrix of a given rank."""

import jax
import jax.numpy as jnp

from spartax.records import Array, Factorization


def svd() -> Factorization:
    """`left = U_r sqrt(S_r) [m, r]`, `right = sqrt(S_r) V_r^T [r, n]`: least Frobenius error of all rank-r matrices.

    The error is `sqrt(sum of sigma_i^2 over i > r)` (Eckart and Young, 1936). Both factors get the root of the singular
    values, so that their entries are of one size, which helps training and quantization. In float32 at least.
    """
    return _split


@jax.jit(static_argnums=1)
def _split(matrix: Array, rank: int) -> tuple[Array, Array]:
    u, s, vt = jnp.linalg.svd(matrix.astype(jnp.promote_types(matrix.dtype, jnp.float32)), full_matrices=False)
    root = jnp.sqrt(s[:rank])
    return u[:, :rank] * root, root[:, None] * vt[:rank]
