"""`pull_removed`: the gradient that makes removed weights small while a mask follows them."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from spartax import checks
from spartax.arrays import TopOfGroups, top_of_groups


def pull_removed(rate: float = 2e-4) -> optax.GradientTransformation:
    """Adds `rate (1 - M) W` to the gradient of every `TopOfGroups`, `M` its mask: the refining half of SR-STE.

    Comes first in the chain, so that momentum and learning rate act on it as on the gradient; other weights are left
    alone. See arXiv 2102.04010 and `prune.sr_ste`.

    Args:
      rate: 0 or more.

    Raises:
      ValueError: a negative rate; at use, an optimizer called without params.
    """
    checks.in_range("rate", rate, 0.0, float("inf"), open_high=True)

    def pulled(updates: Any, params: Any) -> Any:
        if params is None:
            raise ValueError("params must be given to the update of pull_removed; got None.")
        return jax.tree.map(lambda w, g: _pulled(w, g, rate), params, updates, is_leaf=_is_own)

    return optax.stateless(pulled)


def _pulled(weight: Any, gradient: Any, rate: float) -> Any:
    if not _is_own(weight) or weight.weight is None:  # one that is not trained
        return gradient
    removed = jnp.where(top_of_groups.kept(weight), 0, weight.weight)
    return jax.tree.map(lambda g: g + rate * removed, gradient)


def _is_own(x: Any) -> bool:
    return isinstance(x, TopOfGroups)
