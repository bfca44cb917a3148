"""Products whose result is wider than their operands."""

import jax.numpy as jnp
from jax import lax

from spartax.kernels import paths
from spartax.records import Array


def matmul(a: Array, b: Array, precision: lax.PrecisionLike, kind: jnp.dtype) -> Array:
    """`a @ b` of dtype `kind`.

    On CPU both become wide before, which changes no product: XLA has none there of bfloat16 into float32 where an
    operand or the result lies transposed, and says so only when the program runs.
    """
    if paths.platform() == "cpu":
        a, b = a.astype(kind), b.astype(kind)
    return jnp.matmul(a, b, precision=precision, preferred_element_type=kind)
