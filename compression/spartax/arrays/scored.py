"""`Scored`: a weight under a mask that is learnt, the entries with the largest scores."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spartax.arrays import verbs
from spartax.arrays.masked import Masked
from spartax.kernels import threshold
from spartax.records import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Scored(verbs.Leaf):
    """`dense = where(mask, weight, 0)`, the mask holding the `keep` largest `|scores|` (or scores).

    The derivative goes straight through the mask: with `g` that of the dense weight, the scores get
    `sign(scores) * g * weight` (`g * weight` for plain scores), removed entries included, and the weight `g * mask`.

    Attributes:
      weight: array or leaf of the full shape.
      scores: floating array of the same shape.
      keep: kept count, int32 `[]`, or `[L]` for `L` weights stacked along the first axis, each with its own ranking.
        An array, so that a schedule may change it without retracing.
      absolute: whether the size of a score counts, or its value.
    """

    weight: Any
    scores: Array
    keep: Array
    absolute: bool = dataclasses.field(default=True, metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight."""
        return self.weight.shape

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the weight."""
        return verbs.float_dtype(self.weight)


def kept(leaf: Scored) -> Array:
    """The mask as it is now, bool; equal scores are kept from the lowest flat index on."""
    return _mask(leaf.scores, leaf.keep, leaf.absolute)


def fixed(leaf: Scored) -> Masked:
    """The same weight under the same mask, which does not change any more."""
    return Masked(leaf.weight, kept(leaf))


def _mask(scores: Array, keep: Array, absolute: bool) -> Array:
    top = threshold.top
    for _ in range(jnp.ndim(keep)):
        top = jax.vmap(top)
    return top(jnp.abs(scores) if absolute else scores, keep)


@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def _straight_through(weight: Array, scores: Array, keep: Array, absolute: bool) -> Array:
    return jnp.where(_mask(scores, keep, absolute), weight, jnp.zeros((), weight.dtype))


@_straight_through.defjvp
def _(absolute: bool, primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    (weight, scores, keep), (weight_dot, scores_dot, _) = primals, tangents
    mask = _mask(scores, keep, absolute)
    through = weight * (jnp.sign(scores) if absolute else 1) * scores_dot
    moved = jnp.where(mask, weight_dot, 0) + through
    return jnp.where(mask, weight, jnp.zeros((), weight.dtype)), moved.astype(weight.dtype)


@verbs.dense.register
def _(leaf: Scored) -> Array:
    return _straight_through(verbs.dense(leaf.weight), leaf.scores, leaf.keep, leaf.absolute)


@verbs.pack.register
def _(leaf: Scored) -> verbs.Leaf:
    """The scores are needed in training alone."""
    return verbs.pack(fixed(leaf))


@verbs.reshape.register
def _(leaf: Scored, shape: tuple[int, ...]) -> Scored | None:
    """Keeps the flat order, which decides between equal scores; a transpose would not."""
    if verbs.is_leaf(leaf.weight) or jnp.ndim(leaf.keep):
        return None
    return dataclasses.replace(leaf, weight=leaf.weight.reshape(shape), scores=leaf.scores.reshape(shape))


@verbs.astype.register
def _(leaf: Scored, dtype: Any) -> Scored | None:
    weight = verbs.astype(leaf.weight, dtype) if verbs.is_leaf(leaf.weight) else leaf.weight.astype(dtype)
    return None if weight is None else dataclasses.replace(leaf, weight=weight)


@verbs.sliceable.register
def _(leaf: Scored) -> bool:
    return jnp.ndim(leaf.keep) > 0 and verbs.sliceable(leaf.weight)


@verbs.map_arrays.register
def _(leaf: Scored, fn) -> Scored:
    return dataclasses.replace(leaf, weight=verbs.map_arrays(leaf.weight, fn))
