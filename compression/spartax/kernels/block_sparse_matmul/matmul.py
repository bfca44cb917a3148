"""`block_sparse_matmul`: a matrix of activations times a block-sparse matrix, with its gradients."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from spartax.kernels import paths
from spartax.kernels.block_sparse_matmul import gpu, reference, tpu, xla
from spartax.kernels.block_sparse_matmul.structure import Structure, transposed
from spartax.records import Array


def block_sparse_matmul(
    x: Array, values: Array, structure: Structure, *, path: str = "xla", precision: lax.PrecisionLike = None
) -> Array:
    """`x @ W`, where `W` holds the blocks `values` where `structure` says and zeros elsewhere.

    Differentiable in `x` (`g W^T`, by the transposed structure) and in `values` (the stored blocks of `x^T g`). Sums
    run in float32 at least.

    Args:
      x: `[B, rows * r]`.
      values: blocks `[n, r, c]`, float.
      structure: their places in a grid of `rows x columns` blocks; `n` may be 0.
      path: "reference", "xla", "tpu" or "gpu"; the last two are interpreted on another platform.
      precision: of the products, as for `lax.dot_general`.

    Returns:
      `[B, columns * c]` in the common dtype of both, at least float32.
    """
    x, values = (v.astype(jnp.promote_types(x.dtype, values.dtype)) for v in (x, values))
    kind = jnp.promote_types(x.dtype, jnp.float32)
    if values.shape[0] == 0 or x.shape[0] == 0:
        return jnp.zeros((x.shape[0], structure.counts.shape[0] * values.shape[2]), kind)
    return _matmul(x, values, structure, path, precision)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _matmul(x: Array, values: Array, structure: Structure, path: str, precision: lax.PrecisionLike) -> Array:
    kind = jnp.promote_types(x.dtype, jnp.float32)
    options: dict[str, Any] = {"interpret": paths.interpreted(path)}
    match path:
        case "reference":
            return reference.matmul(x, values, structure, precision, kind)
        case "xla":
            return xla.matmul(x, values, structure, precision, kind, xla.Tuning())
        case "tpu":
            return tpu.matmul(x, values, structure, precision, kind, **options)
    return gpu.matmul(x, values, structure, precision, kind, **options)


def _forward(x: Array, values: Array, structure: Structure, path: str, precision: lax.PrecisionLike) -> Any:
    return _matmul(x, values, structure, path, precision), (x, values, structure)


def _backward(path: str, precision: lax.PrecisionLike, saved: Any, g: Array) -> tuple[Array, Array, None]:
    kinds = [v.dtype for v in saved[:2]]
    wide = kinds[0] if path == "gpu" else g.dtype  # a matrix unit of Hopper takes operands of one 16-bit dtype
    (x, values), g, structure = (v.astype(wide) for v in saved[:2]), g.astype(wide), saved[2]
    r, c = values.shape[1:]
    dx = _matmul(g, *transposed(values, structure, x.shape[1] // r), path, precision)
    return dx.astype(kinds[0]), _sampled(x, g, structure, (r, c), path, precision).astype(kinds[1]), None


def _sampled(
    x: Array, g: Array, structure: Structure, block: tuple[int, int], path: str, precision: lax.PrecisionLike
) -> Array:
    match path:
        case "reference":
            return reference.sampled(x, g, structure, block, precision)
        case "tpu":
            return tpu.sampled(x, g, structure, block, precision, interpret=paths.interpreted(path))
        case "gpu":
            return gpu.sampled(x, g, structure, block, interpret=paths.interpreted(path))
    return xla.sampled(x, g, structure, block, precision, xla.Tuning())


_matmul.defvjp(_forward, _backward)
