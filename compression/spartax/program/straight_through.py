"""`straight_through(fn)`: rounding that lets gradients pass, so that attacks are not fooled by it.

A network with rounding inside has the derivative zero almost everywhere; gradient attacks then fail for a reason that
has nothing to do with robustness. Attacking with the derivative of the identity instead is the standard answer: the
straight-through estimator (Bengio et al., arXiv 1308.3432), backward-pass differentiable approximation in attacks
(Athalye et al., arXiv 1802.00420).
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax.extend.core import primitives

from spartax.kernels.derivatives import with_derivative_of
from spartax.program import walk

STEPS = (primitives.round_p, primitives.floor_p, primitives.ceil_p, primitives.sign_p)


def straight_through(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, in whose derivative round, floor, ceil, sign and clip are the identity.

    `jnp.clip` and `lax.clamp` count as clip; `max` and `min` on their own (a relu) do not. A float cast to an integer
    type has no derivative to pass on, and neither has a comparison: values that go through them stay without gradient,
    which the checks of gradient trust will say.

    Args:
      fn: a pure function of arrays; for compressed params write `straight_through(compressed(fn))`.

    Returns:
      A function of the same signature and values (not jitted).
    """
    return walk.rewritten(fn, _visit)


def _visit(eqn: Any, values: list[Any], trips: int) -> list[Any] | None:
    if eqn.primitive in STEPS:
        source = values[0]
    elif eqn.primitive is primitives.clamp_p:
        source = values[1]  # clamp(low, x, high)
    elif eqn.primitive is primitives.jit_p and eqn.params["name"] == "clip":
        source = values[0]  # jnp.clip(x, low, high) is a jitted function of its own
    else:
        return None
    out = walk.bind(eqn, values)[0]
    if not jnp.issubdtype(out.dtype, jnp.floating):
        return None
    source = jnp.broadcast_to(source, out.shape).astype(out.dtype)
    # The value is `out` itself, not source + (out - source), which would round differently.
    return [with_derivative_of(source, out)]
