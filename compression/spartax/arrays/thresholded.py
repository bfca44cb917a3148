"""`Thresholded`: a weight in training whose output channels are on or off by a learnt threshold."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from spartax.arrays import verbs
from spartax.arrays.bitmask import compact
from spartax.arrays.masked import Masked
from spartax.kernels import threshold
from spartax.kernels.derivatives import with_derivative_of
from spartax.records import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Thresholded(verbs.Leaf):
    """`dense = weight * z` along the output axis: `z_i = 1` if `a_i > threshold`, else 0.

    `a_i = |w_i| / mean_j |w_j|` is the norm of a channel, so that thresholds of layers compare. The derivative of `z_i`
    in the threshold is that of `sigmoid((a_i - threshold) / temperature)`; none goes into `a_i`, which would shrink
    weights for the sake of sparsity.

    Attributes:
      weight: array or leaf of the full shape.
      threshold: float32 `[]`, or `[L]` for a stack of `L` weights.
      axis: of the output channels, negative, so that a stack may be sliced off in front.
      least: channels that stay on whatever the threshold: the largest.
      temperature: width of the sigmoid, in units of the mean norm.
    """

    weight: Any
    threshold: Array
    axis: int = dataclasses.field(metadata={"static": True})
    least: int = dataclasses.field(default=1, metadata={"static": True})
    temperature: float = dataclasses.field(default=0.05, metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight."""
        return self.weight.shape

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the weight."""
        return verbs.float_dtype(self.weight)


def gates(leaf: Thresholded) -> Array:
    """`z`, float32 `[*stack, channels]`, with its derivative in the threshold."""
    one = functools.partial(_gates, leaf.axis, leaf.least, leaf.temperature)
    for _ in range(jnp.ndim(leaf.threshold)):
        one = jax.vmap(one)
    return one(lax.stop_gradient(verbs.dense(leaf.weight)), leaf.threshold)


def scores(weight: Array, axis: int) -> Array:
    """`|w_i| / mean_j |w_j|`, float32 `[channels]`."""
    rows = jnp.moveaxis(weight.astype(jnp.float32), axis, 0).reshape(weight.shape[axis], -1)
    norms = jnp.linalg.norm(rows, axis=1)
    return norms / jnp.maximum(jnp.mean(norms), jnp.finfo(jnp.float32).tiny)


def _gates(axis: int, least: int, temperature: float, weight: Array, level: Array) -> Array:
    score = scores(weight, axis)
    on = (score > level) | threshold.top(score, least)
    return with_derivative_of(jax.nn.sigmoid((score - level) / temperature), on.astype(jnp.float32))


def fixed(leaf: Thresholded) -> Masked:
    """The same weight under the mask that the gates give now, which does not change any more."""
    weight = verbs.dense(leaf.weight)
    return Masked(weight, jnp.broadcast_to(_along(leaf, gates(leaf) > 0), weight.shape))


def _along(leaf: Thresholded, channels: Array) -> Array:
    """One number for each channel, in a shape that broadcasts against the weight."""
    stack = channels.shape[:-1]
    return channels.reshape(*stack, *(-1 if a == leaf.axis else 1 for a in range(len(stack) - leaf.ndim, 0)))


@verbs.dense.register
def _(leaf: Thresholded) -> Array:
    weight = verbs.dense(leaf.weight)
    return weight * _along(leaf, gates(leaf)).astype(weight.dtype)


@verbs.pack.register
def _(leaf: Thresholded) -> verbs.Leaf:
    """The threshold is needed in training alone."""
    plain = fixed(leaf)
    return compact(plain.weight, plain.mask)


@verbs.sliceable.register
def _(leaf: Thresholded) -> bool:
    return jnp.ndim(leaf.threshold) > 0 and verbs.sliceable(leaf.weight)


@verbs.map_arrays.register
def _(leaf: Thresholded, fn) -> Thresholded:
    return dataclasses.replace(leaf, weight=verbs.map_arrays(leaf.weight, fn))
