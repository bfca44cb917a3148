"""`nm_matmul`: a matrix of activations times an N:M sparse matrix, with its gradients."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from spartax.kernels import paths
from spartax.kernels.nm_matmul import gpu, reference, tpu, xla
from spartax.kernels.nm_matmul.form import chosen, unpacked
from spartax.records import Array

PALLAS = {"tpu": tpu, "gpu": gpu}


def nm_matmul(
    x: Array, values: Array, data: Array, m: int, *, path: str = "xla", precision: lax.PrecisionLike = None
) -> Array:
    """`x @ W`, where every group of `m` rows of a column of `W` holds `n` values and zeros elsewhere.

    Differentiable in `x` (`g W^T`) and in `values` (the kept entries of `x^T g`). Sums run in float32 at least.

    Args:
      x: `[B, groups * m]`.
      values: `[n, groups, columns]`, float.
      data: packed places `[n, bytes of a cell, groups / cell, columns]` uint8, as `form` lays them out.
      m: size of a group.
      path: "reference", "xla", "tpu" or "gpu"; the last two are interpreted on another platform.
      precision: of the products, as for `lax.dot_general`.

    Returns:
      `[B, columns]` in the common dtype of both, at least float32.
    """
    x, values = (v.astype(jnp.promote_types(x.dtype, values.dtype)) for v in (x, values))
    if x.shape[0] == 0 or values.size == 0:
        return jnp.zeros((x.shape[0], values.shape[2]), jnp.promote_types(x.dtype, jnp.float32))
    return _matmul(x, values, data, m, path, precision)


def _run(name: str, path: str, x: Array, *args: Any) -> Array:
    """Function `name` of the file of this path."""
    kind = jnp.promote_types(x.dtype, jnp.float32)
    if path in PALLAS:
        return getattr(PALLAS[path], name)(x, *args, kind, interpret=paths.interpreted(path))
    return getattr(reference if path == "reference" else xla, name)(x, *args, kind)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _matmul(x: Array, values: Array, data: Array, m: int, path: str, precision: lax.PrecisionLike) -> Array:
    return _run("matmul", path, x, values, data, m, precision)


def _forward(x: Array, values: Array, data: Array, m: int, path: str, precision: lax.PrecisionLike) -> Any:
    return _matmul(x, values, data, m, path, precision), (x, values, data)


def _backward(m: int, path: str, precision: lax.PrecisionLike, saved: Any, g: Array) -> tuple[Array, Array, None]:
    x, values, data = saved
    wide = x.dtype if path == "gpu" else g.dtype  # a matrix unit of Hopper takes operands of one 16-bit dtype
    dx = _run("pullback", path, g.astype(wide), values.astype(wide), data, m, precision)
    whole = jnp.matmul(x.astype(g.dtype).T, g, precision=precision)
    dvalues = chosen(whole, unpacked(data, m, values.shape[1]), m)
    return dx.astype(x.dtype), dvalues.astype(values.dtype), None


_matmul.defvjp(_forward, _backward)
