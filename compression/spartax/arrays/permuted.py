"""`Permuted`: an array kept in another order of its axes than the weight it belongs to."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spartax.arrays import verbs
from spartax.records import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Permuted(verbs.Leaf):
    """`dense = transpose(value, axes)` of the trailing axes; leading axes beyond those are a stack.

    Integer codes are kept outputs first, inputs last: that is the order in which integer matrix units read them (on CPU
    twice as fast as the other; the only one on Hopper), and the one in which neighbours share a group and a byte.

    Attributes:
      value: array or leaf.
      axes: for each of the last axes of the dense array, the axis of `value` it is; negative numbers.
    """

    value: Any
    axes: tuple[int, ...] = dataclasses.field(metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape after the permutation."""
        shape = tuple(self.value.shape)
        return (*shape[: len(shape) - len(self.axes)], *(shape[a] for a in self.axes))

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the value."""
        return verbs.float_dtype(self.value)


def outputs_first(x: Any, outputs: tuple[int, ...], inputs: tuple[int, ...]) -> Any:
    """The array `x` kept as `[*rest, *outputs, *inputs]`; `x` itself where it is so already or rest is not in front."""
    stored, rest = (*outputs, *inputs), x.ndim - len(outputs) - len(inputs)
    if stored == tuple(range(rest, x.ndim)) or set(stored) != set(range(rest, x.ndim)):
        return x
    axes = tuple(stored.index(a) - len(stored) for a in range(rest, x.ndim))
    return Permuted(jnp.transpose(x, (*range(rest), *stored)), axes)


def full_axes(axes: tuple[int, ...], ndim: int) -> tuple[int, ...]:
    """The permutation of all axes, counted from zero, stack included."""
    return (*range(ndim - len(axes)), *(a + ndim for a in axes))


@verbs.dense.register
def _(leaf: Permuted) -> Array:
    return jnp.transpose(verbs.dense(leaf.value), full_axes(leaf.axes, leaf.ndim))


@verbs.pack.register
def _(leaf: Permuted) -> Permuted:
    return dataclasses.replace(leaf, value=verbs.pack(leaf.value))


@verbs.transpose.register
def _(leaf: Permuted, axes: tuple[int, ...]) -> Any:
    """Only the note on the order changes, unless axes of the stack move too."""
    full = full_axes(leaf.axes, leaf.ndim)
    moved, lead = tuple(full[a] for a in axes), leaf.ndim - len(leaf.axes)
    if moved[:lead] != tuple(range(lead)):
        return None
    axes = tuple(a - leaf.ndim for a in moved[lead:])
    return leaf.value if moved == tuple(range(leaf.ndim)) else dataclasses.replace(leaf, axes=axes)


@verbs.take.register
def _(leaf: Permuted, rows: Array) -> Array | None:
    if verbs.is_leaf(leaf.value) or leaf.ndim > len(leaf.axes):
        return None
    axes = full_axes(leaf.axes, leaf.ndim)
    picked = jnp.transpose(jnp.take(leaf.value, rows.reshape(-1), axis=axes[0]), axes)
    return picked.reshape(*rows.shape, *leaf.shape[1:])


@verbs.sliceable.register
def _(leaf: Permuted) -> bool:
    return leaf.ndim > len(leaf.axes) and verbs.sliceable(leaf.value)


@verbs.map_arrays.register
def _(leaf: Permuted, fn) -> Permuted:
    return dataclasses.replace(leaf, value=verbs.map_arrays(leaf.value, fn))
