"""The mask of one transform among several around a weight."""

from collections.abc import Callable
from typing import Any

import jax

from spartax.arrays import Masked


def depth_of(weight: Any) -> int:
    """How many masks are around the entries of a weight; a transform knows its own mask by what is under it."""
    found = jax.tree.leaves(weight, is_leaf=lambda x: isinstance(x, Masked))
    return max((1 + depth_of(x.weight) for x in found if isinstance(x, Masked)), default=0)


def mine(weight: Any, depth: int) -> Masked:
    """The mask with `depth` others under it.

    Raises:
      ValueError: there is none.
    """
    found = [x for x in jax.tree.leaves(weight, is_leaf=_is_mine(depth)) if _is_mine(depth)(x)]
    if not found:
        raise ValueError("params hold no mask of this transform; call its init first.")
    return found[0]


def exchange(weight: Any, depth: int, new: Masked) -> Any:
    """The weight with `new` in place of the mask that `mine` finds."""
    return jax.tree.map(lambda x: new if _is_mine(depth)(x) else x, weight, is_leaf=_is_mine(depth))


def _is_mine(depth: int) -> Callable[[Any], bool]:
    return lambda x: isinstance(x, Masked) and depth_of(x.weight) == depth
