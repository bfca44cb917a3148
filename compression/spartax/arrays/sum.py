"""`Sum`: a weight that is the sum of several leaves, such as int4 codes and a low-rank residual."""

import dataclasses
import functools
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from spartax.arrays import residual, verbs
from spartax.arrays.lowrank import LowRank
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


class Part(NamedTuple):
    """Terms that are computed together.

    Attributes:
      name: how.
      macs: multiply-adds.
      run: activation -> their share of the result.
    """

    name: str
    macs: int
    run: Callable[[Array], Array]


def _parts(leaf: Sum, use: Use) -> list[Part]:
    """A weight and its low-rank term in one product where that is faster, and every other term on its own; terms
    without a kernel are made dense together. Empty if no term has a kernel."""
    plans = [(t, verbs.plan(t, use)) for t in leaf.terms]
    fast, slow = [(t, p) for t, p in plans if p.kernel], [t for t, p in plans if not p.kernel]
    if not fast:
        return []
    if slow:
        names = " and ".join(type(t).__name__ if verbs.is_leaf(t) else "array" for t in slow)
        fast.append((_total([verbs.dense(t) for t in slow]), verbs.Plan(f"{names} dense", "", use.macs)))
    pair = _pair([t for t, _ in fast], use)
    if pair is None:
        return [_part(t, p, use) for t, p in fast]
    (weight, plan), (low, other) = fast[pair[0]], fast[pair[1]]
    path = residual.choose(weight, low, use).path
    run = functools.partial(residual.contract, weight, low, use)
    both = Part(f"{plan.kernel} and rank {low.rank} in one product [{path}]", plan.macs + other.macs, run)
    return [both, *(_part(t, p, use) for k, (t, p) in enumerate(fast) if k not in pair)]


def _part(term: Any, plan: verbs.Plan, use: Use) -> Part:
    run = functools.partial(verbs.contract, term, use)
    return Part(str(plan.kernel), plan.macs, run)


def _pair(terms: list[Any], use: Use) -> tuple[int, int] | None:
    """Places of the first low-rank term and of a weight that is multiplied together with it."""
    lows = [k for k, t in enumerate(terms) if isinstance(t, LowRank)]
    pairs = ((k, low) for low in lows[:1] for k, t in enumerate(terms) if not isinstance(t, LowRank))
    return next((p for p in pairs if residual.choose(terms[p[0]], terms[p[1]], use).path), None)


@verbs.plan.register
def _(leaf: Sum, use: Use) -> verbs.Plan:
    parts = _parts(leaf, use)
    if not parts:
        return verbs.Plan(None, "Sum: no term has a kernel here", use.macs)
    why = "each term on its own" if len(parts) == len(leaf.terms) else "terms together where that is faster"
    return verbs.Plan("Sum: " + " + ".join(p.name for p in parts), why, sum(p.macs for p in parts))


@verbs.contract.register
def _(leaf: Sum, use: Use, x: Array) -> Array:
    return _total([p.run(x) for p in _parts(leaf, use)] or [use.apply(verbs.dense(leaf), x)])


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
