"""Mixed precision: low-precision passes, float32 weights."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from spartax import tree
from spartax.arrays import dense, is_leaf, verbs
from spartax.records import Params


def mixed_precision(apply: Callable[..., Any], dtype: Any = jnp.bfloat16) -> Callable[..., Any]:
    """`apply` or `train_apply` that computes in `dtype` with weights, gradients and optimizer state in float32.

    Params and inputs are cast inside, so that gradients come back as float32; logits and updated collections come out
    as float32. Collections beside params (batch statistics) are not cast. Give it to `make_step`; measure and attack
    the network without it, because rounding hides gradients. See Micikevicius et al., arXiv 1710.03740; bfloat16 has
    the range of float32, so there is no loss scaling.

    Args:
      apply: `(variables, x) -> ...`; compressed leaves in the variables become leaves of the other dtype.
      dtype: a floating dtype.

    Raises:
      ValueError: `dtype` is not floating.
    """
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"dtype must be floating; got {dtype!r}.")

    def mixed(variables: Params, x: Any) -> Any:
        in_collections = isinstance(variables, Mapping) and "params" in variables
        params = _cast(variables["params"] if in_collections else variables, dtype)
        out = apply({**variables, "params": params} if in_collections else params, _cast(x, dtype))
        return _cast(out, jnp.float32)

    return mixed


def _cast(values: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda x: _as(x, dtype) if tree.is_floating(x) else x, values, is_leaf=is_leaf)


def _as(x: Any, dtype: Any) -> Any:
    if not is_leaf(x):
        return x.astype(dtype)
    leaf = verbs.astype(x, dtype)
    return dense(x).astype(dtype) if leaf is None else leaf
