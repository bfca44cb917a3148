"""`compressed(fn)`: any JAX function, run on compressed weights."""

import functools
from collections.abc import Callable
from typing import Any

import jax

from spartax.arrays.verbs import dense, is_leaf
from spartax.program import rules, walk


def compressed(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A jitted `fn` that accepts compressed leaves anywhere in its arguments.

    `fn` is traced once on the shapes of the dense weights (which are never made); then each contraction with a
    compressed weight goes to the leaf's own kernel, and whatever has no rule gets `dense(leaf)` inside the jit.

    Args:
      fn: a pure function of arrays: Linen `module.apply`, an NNX merge-and-call, an Equinox call, a Haiku `apply`, ...

    Returns:
      A jitted function of the same signature and result. New values retrace nothing; new shapes or leaf types do.
    """

    @jax.jit
    @functools.wraps(fn)
    def run(*args: Any, **kwargs: Any) -> Any:
        jaxpr, out_tree = walk.trace(fn, args, kwargs)
        values = jax.tree.leaves((args, kwargs), is_leaf=is_leaf)
        outputs = walk.walk(jaxpr, values, rules.apply_rule)
        return out_tree.unflatten([dense(v) if is_leaf(v) else v for v in outputs])

    return run
