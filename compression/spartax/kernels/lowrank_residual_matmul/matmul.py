"""The one door to all paths."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from spartax.kernels import paths, products
from spartax.kernels.derivatives import with_derivative_of
from spartax.kernels.lowrank_residual_matmul import gpu, reference, tpu, xla
from spartax.kernels.lowrank_residual_matmul.bases import Base, Codes
from spartax.records import Array


def lowrank_residual_matmul(
    x: Array, base: Base, u: Array, v: Array, *, path: str = "xla", precision: lax.PrecisionLike = None
) -> Array:
    """`y = x W + (x U) V`, the result written once: the sum of `x W` starts or ends with `(x U) V`.

    Differentiable in x (`g W^T + (g V^T) U^T`), U (`x^T (g V^T)`), V (`(x U)^T g`) and the floats of W, as the two
    products are.

    Args:
      x: `[B, K]`, float.
      base: `W [K, O]`, one of the records of `bases`.
      u: `[K, r]`; used in the dtype of x.
      v: `[r, O]`; likewise.
      path: "reference", "xla", "tpu" or "gpu" (`Codes` only); the last two are interpreted on another platform.
      precision: of the products, as for `lax.dot_general`; `Codes` take that of the context.

    Returns:
      `[B, O]`, at least float32.

    Raises:
      ValueError: another base than `Codes` on the path "gpu".
    """
    if path == "gpu" and not isinstance(base, Codes):
        raise ValueError(f"base: {gpu.misfit(type(base))}.")
    u, v = u.astype(x.dtype), v.astype(x.dtype)
    if x.shape[0] == 0:
        return jnp.zeros((0, v.shape[1]), jnp.promote_types(x.dtype, jnp.float32))
    if path == "reference":
        return reference.matmul(x, base, u, v)
    kind = jnp.promote_types(x.dtype, jnp.float32)
    t = products.matmul(x, u, precision, kind).astype(x.dtype)
    apart = xla.matmul(x, base, t, v, path, precision)
    if path == "xla":
        return apart
    own, held, first, last = _stopped((x, base, t, v))
    product = (gpu if path == "gpu" else tpu).matmul
    together = product(own, held, first, last, precision, interpret=paths.interpreted(path))
    return with_derivative_of(apart, together)


def _stopped(tree: Any) -> Any:
    """Every array without its derivative; the static halves of a base stay."""
    return jax.tree.map(lambda a: lax.stop_gradient(a) if isinstance(a, jax.Array) else a, tree)
