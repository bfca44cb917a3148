"""`TopOfGroups`: an N:M sparse weight in training, whose mask follows the weight."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spartax.arrays import verbs
from spartax.arrays.bitmask import compact
from spartax.arrays.masked import Masked
from spartax.kernels import groups
from spartax.records import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class TopOfGroups(verbs.Leaf):
    """`dense = where(mask, weight, 0)`, the mask keeping the `n` largest `|weight|` of every `m` along `axis`.

    The derivative goes straight through: that of the weight is that of the dense weight, removed entries included. The
    mask is computed anew wherever the weight is used, so it is never out of date and nothing refreshes it.

    Attributes:
      weight: floating array.
      n: kept entries of a group.
      m: size of a group.
      axis: along which groups lie, negative, so that a stack may be sliced off in front.
    """

    weight: Array
    n: int = dataclasses.field(metadata={"static": True})
    m: int = dataclasses.field(metadata={"static": True})
    axis: int = dataclasses.field(metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight."""
        return self.weight.shape

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the weight."""
        return verbs.float_dtype(self.weight)


def kept(leaf: TopOfGroups) -> Array:
    """The mask as it is now, bool; among equal sizes the lower index is kept."""
    return groups.top_of_groups(jnp.abs(leaf.weight), leaf.n, leaf.m, leaf.axis)


def fixed(leaf: TopOfGroups) -> Masked:
    """The same weight under the same mask, which does not change any more."""
    return Masked(leaf.weight, kept(leaf))


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3))
def _straight_through(weight: Array, n: int, m: int, axis: int) -> Array:
    mask = groups.top_of_groups(jnp.abs(weight), n, m, axis)
    return jnp.where(mask, weight, jnp.zeros((), weight.dtype))


@_straight_through.defjvp
def _(n: int, m: int, axis: int, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return _straight_through(*primals, n, m, axis), tangents[0]


@verbs.dense.register
def _(leaf: TopOfGroups) -> Array:
    return _straight_through(leaf.weight, leaf.n, leaf.m, leaf.axis)


@verbs.pack.register
def _(leaf: TopOfGroups) -> verbs.Leaf:
    return compact(leaf.weight, kept(leaf))


@verbs.astype.register
def _(leaf: TopOfGroups, dtype: Any) -> TopOfGroups:
    return dataclasses.replace(leaf, weight=leaf.weight.astype(dtype))


@verbs.sliceable.register
def _(leaf: TopOfGroups) -> bool:
    return leaf.axis != -leaf.ndim


@verbs.map_arrays.register
def _(leaf: TopOfGroups, fn) -> TopOfGroups:
    return dataclasses.replace(leaf, weight=fn(leaf.weight))
