"""The one door to all paths."""

from typing import Any

import jax.numpy as jnp
from jax import lax

from spartax.kernels import levels, paths
from spartax.kernels.derivatives import with_derivative_of
from spartax.kernels.quantized_matmul import gpu, reference, tpu, xla
from spartax.kernels.quantized_matmul.form import Form
from spartax.records import Array


def quantized_matmul(
    x: Array, data: Array, scale: Array, zero: Array | None, form: Form, *, path: str = "xla", int8: bool = False
) -> Array:
    """`y = x @ w.T` for `w[o, k] = (value(code[o, k]) - zero[o, group of k]) * scale[o, group of k]`.

    Args:
      x: `[M, K]`, float32, bfloat16 or float16, or int8.
      data: the codes, `[O, K]` or `[O, bytes]`; see `Form`.
      scale: `[O, groups]` with groups that divide K; floats, or uint8 shared exponents.
      zero: zero points of the same shape, or None.
      form: what the arrays mean.
      path: "reference", "xla", "tpu" or "gpu" (`choose`); the last two are interpreted on another platform.
      int8: round each row of x to int8 with the scale `max|row| / 127`, and multiply integers. An x of int8 codes is
        taken as it is.

    Returns:
      float32 `[M, O]`, summed in float32 or int32. Differentiable in x and in a floating scale; the derivative of an
      int8 product is that of the product with unrounded x (straight through, arXiv 1308.3432).

    Raises:
      ValueError: `int8` with codes that are not integers, or with zero points that are floats.
    """
    if int8 and form.levels != "integer":
        raise ValueError(f"int8 products take integer codes; {form.levels} codes stand for other numbers.")
    if int8 and zero is not None and not levels.is_integer(zero):
        raise ValueError(f"int8 products take integer zero points, not {zero.dtype}.")
    if 0 in (x.shape[0], data.shape[0]):
        return jnp.zeros((x.shape[0], data.shape[0]), jnp.float32)
    scale = levels.scale_values(scale).astype(jnp.float32)
    if path == "xla":
        return (xla.int8_matmul if int8 else xla.matmul)(x, data, scale, zero, form)
    smooth = (reference if path == "reference" else xla).matmul
    if path == "reference":
        value = reference.int8_matmul if int8 else reference.matmul
        exact = smooth(x, data, scale, zero, form)
        return with_derivative_of(exact, value(x, data, scale, zero, form)) if int8 else exact
    stopped = lax.stop_gradient((x, data, scale, zero))
    options: Any = {"int8": int8, "interpret": paths.interpreted(path)}
    value = (gpu if path == "gpu" else tpu).matmul(*stopped, form, **options)
    return with_derivative_of(smooth(x, data, scale, zero, form), value)
