"""Values with the derivative of something else: how a fast or rounded computation is differentiated."""

from typing import Any

import jax
from jax import lax


def with_derivative_of(source: Any, value: Any) -> Any:
    """`value`, whose derivative in either mode is that of `source` (same shape and dtype).

    Under `jit` the values of `source` are never computed unless its derivative needs them.
    """
    return _with_derivative_of(source, jax.tree.map(lax.stop_gradient, value))


@jax.custom_jvp
def _with_derivative_of(source: Any, value: Any) -> Any:
    return value


_with_derivative_of.defjvps(lambda t, out, source, value: t, None)
