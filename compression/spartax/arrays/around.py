"""What the leaves share that hold a weight and round the activations it meets: everything but the rounding."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from spartax.arrays import verbs
from spartax.arrays.use import Use
from spartax.records import Array


def over_batch(value: Array, use: Use, ndim: int) -> Array:
    """Values `[*stack]` along the axes of an activation of `ndim` axes that meet the stack."""
    if not value.ndim:
        return value
    met = dict(zip(use.dims[2], use.dims[3]))  # axis of the weight -> axis of x
    order = sorted(range(value.ndim), key=lambda a: met[a])
    shape = [1] * ndim
    for axis in range(value.ndim):
        shape[met[axis]] = value.shape[axis]
    return jnp.transpose(value, order).reshape(shape)


def inner_plan(leaf: Any, use: Use) -> verbs.Plan:
    """How the weight inside meets the rounded activation."""
    return verbs.plan(leaf.weight, use) if verbs.is_leaf(leaf.weight) else verbs.Plan(None, "an array", use.macs)


def register(kind: type) -> None:
    """Give a leaf with the field `weight` and the property `stack` the verbs of that weight.

    Where the weight has no such form it becomes dense inside the leaf: without the leaf nothing would be rounded.
    """
    for verb, rule in _RULES.items():
        verb.register(kind)(rule)


def _dense(leaf: Any) -> Array:
    return verbs.dense(leaf.weight) if verbs.is_leaf(leaf.weight) else leaf.weight


def _pack(leaf: Any) -> Any:
    """The weight gets small; activations are rounded as before."""
    return dataclasses.replace(leaf, weight=verbs.pack(leaf.weight))


def _transpose(leaf: Any, axes: tuple[int, ...]) -> Any:
    if axes[: leaf.stack] != tuple(range(leaf.stack)):
        return None
    moved = verbs.transpose(leaf.weight, axes) if verbs.is_leaf(leaf.weight) else None
    return dataclasses.replace(leaf, weight=jnp.transpose(_dense(leaf), axes) if moved is None else moved)


def _reshape(leaf: Any, shape: tuple[int, ...]) -> Any:
    if shape[: leaf.stack] != leaf.shape[: leaf.stack]:
        return None
    moved = verbs.reshape(leaf.weight, shape) if verbs.is_leaf(leaf.weight) else None
    return dataclasses.replace(leaf, weight=_dense(leaf).reshape(shape) if moved is None else moved)


def _astype(leaf: Any, dtype: Any) -> Any:
    cast = verbs.astype(leaf.weight, dtype) if verbs.is_leaf(leaf.weight) else None
    return dataclasses.replace(leaf, weight=_dense(leaf).astype(dtype) if cast is None else cast)


def _within(leaf: Any, fn: Any) -> Any:
    out = fn(_dense(leaf))
    return dataclasses.replace(leaf, weight=out) if out.shape[: leaf.stack] == leaf.shape[: leaf.stack] else None


def _take(leaf: Any, rows: Array) -> Any:
    """Rows that are looked up meet no activation."""
    return verbs.take(leaf.weight, rows) if verbs.is_leaf(leaf.weight) else leaf.weight[rows]


def _map_arrays(leaf: Any, fn: Any) -> Any:
    return dataclasses.replace(leaf, weight=verbs.map_arrays(leaf.weight, fn))


_RULES = {
    verbs.dense: _dense,
    verbs.pack: _pack,
    verbs.transpose: _transpose,
    verbs.reshape: _reshape,
    verbs.astype: _astype,
    verbs.within: _within,
    verbs.take: _take,
    verbs.map_arrays: _map_arrays,
}
