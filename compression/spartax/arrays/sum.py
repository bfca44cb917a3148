"""`Sum`: a weight that is the sum of several leaves, such as int4 codes and a low-rank residual."""

import dataclasses
import functools
import operator
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from spartax.arrays import verbs
from spartax.arrays.use import Use
from spartax.records import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Sum(verbs.Leaf):
    """`dense = sum of dense(term)`; every term contracts in its own way.

    Attributes:
      terms: arrays or leaves of one shape.
    """

    terms: tuple[Any, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of every term."""
        return self.terms[0].shape

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the sum."""
        return np.result_type(*(verbs.float_dtype(t) for t in self.terms))


def _total(values: list[Array]) -> Array:
    return functools.reduce(operator.add, values)


@verbs.dense.register
def _(leaf: Sum) -> Array:
    return _total([verbs.dense(t) for t in leaf.terms])


@verbs.pack.register
def _(leaf: Sum) -> Sum:
    return Sum(tuple(verbs.pack(t) for t in leaf.terms))


def _split(leaf: Sum, use: Use) -> tuple[list[tuple[Any, verbs.Plan]], list[Any]]:
    """Terms with a kernel for this use (and their plans), and the terms that are made dense together."""
    plans = [(t, verbs.plan(t, use)) for t in leaf.terms]
    return [(t, p) for t, p in plans if p.kernel], [t for t, p in plans if not p.kernel]


@verbs.plan.register
def _(leaf: Sum, use: Use) -> verbs.Plan:
    fast, slow = _split(leaf, use)
    if not fast:
        return verbs.Plan(None, "Sum: no term has a kernel here", use.macs)
    macs = sum(p.macs for _, p in fast) + (use.macs if slow else 0)
    names = [str(p.kernel) for _, p in fast] + [f"{type(t).__name__} dense" for t in slow]
    return verbs.Plan("Sum: " + " + ".join(names), "each term on its own", macs)


@verbs.contract.register
def _(leaf: Sum, use: Use, x: Array) -> Array:
    fast, slow = _split(leaf, use)
    parts = [verbs.contract(t, use, x) for t, _ in fast]
    return _total(parts + ([use.apply(_total([verbs.dense(t) for t in slow]), x)] if slow else []))


def _each(leaf: Sum, fn: Callable[[Any], Any]) -> Sum | None:
    terms = tuple(fn(t) for t in leaf.terms)
    return None if any(t is None for t in terms) else Sum(terms)


@verbs.transpose.register
def _(leaf: Sum, axes: tuple[int, ...]) -> Sum | None:
    return _each(leaf, lambda t: verbs.transpose(t, axes) if verbs.is_leaf(t) else t.transpose(axes))


@verbs.reshape.register
def _(leaf: Sum, shape: tuple[int, ...]) -> Sum | None:
    return _each(leaf, lambda t: verbs.reshape(t, shape) if verbs.is_leaf(t) else t.reshape(shape))


@verbs.astype.register
def _(leaf: Sum, dtype: Any) -> Sum | None:
    return _each(leaf, lambda t: verbs.astype(t, dtype) if verbs.is_leaf(t) else t.astype(dtype))


@verbs.take.register
def _(leaf: Sum, rows: Array) -> Sum | None:
    return _each(leaf, lambda t: verbs.take(t, rows) if verbs.is_leaf(t) else t[rows])


@verbs.sliceable.register
def _(leaf: Sum) -> bool:
    return all(verbs.sliceable(t) for t in leaf.terms)


@verbs.map_arrays.register
def _(leaf: Sum, fn) -> Sum:
    return Sum(tuple(verbs.map_arrays(t, fn) for t in leaf.terms))
