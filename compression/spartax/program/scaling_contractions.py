"""Contractions end the marks of their inputs and begin those of their outputs."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from spartax.program.scaling_marks import Book, Param, Plain, Scaled


def _spread(index: np.ndarray, axes: Sequence[int], ndim: int) -> np.ndarray:
    """An index whose axes are `axes` of an array with `ndim` axes."""
    order = sorted(range(len(axes)), key=lambda i: axes[i])
    shape = [1] * ndim
    for size, axis in zip(index.shape, axes):
        shape[axis] = size
    return index.transpose(order).reshape(shape)


def _start(book: Book, weight: Param, axes: Sequence[int], places: Sequence[int], rank: int) -> Scaled:
    """The outputs of a contracted weight: these stored axes of it become those places of the result."""
    shape = book.shapes[weight.path]
    index = np.arange(math.prod(shape[a] for a in axes), dtype=np.int32).reshape([shape[a] for a in axes])
    book.starts[weight.path] = _spread(index, axes, len(shape))
    return Scaled(weight.path, _spread(index, places, rank))


def _read(book: Book, weight: Param, x: Any, index: np.ndarray | None, why: str = "") -> None:
    """A contracted weight takes over the factors of its inputs, or has none to take."""
    if index is None:
        book.unscaled.setdefault(weight.path, why or (x.why if isinstance(x, Plain) else "a constant of the program"))
    else:
        book.multiplied.setdefault(x.root, {})[weight.path] = index


def dot(book: Book, eqn: Any, values: list[Any]) -> Any:
    """A weight takes over the factors of the axes that it contracts; its own outputs begin a pair."""
    contracted, batch = eqn.params["dimension_numbers"]
    for value in values:
        if isinstance(value, Param):
            book.uses[value.path] += 1
    weights = [i for i, v in enumerate(values) if isinstance(v, Param)]
    if len(weights) == 2:
        return "multiplied by another weight"
    if not weights:
        return _activations(eqn, values)
    side = weights[0]
    weight, x = values[side], values[1 - side]
    if batch[side]:
        _read(book, weight, x, None, "a stack of weights")
        return "meets a stack of weights"
    over, own = contracted[1 - side], contracted[side]
    if isinstance(x, Scaled):
        if all(x.index.shape[a] == 1 for a in over):
            _read(book, weight, x, None, f"the factors of {x.root} pass it")
            return _activations(eqn, [x if v is x else None for v in values])
        if any(n > 1 for a, n in enumerate(x.index.shape) if a not in over):
            _read(book, weight, x, None, "scaled along axes that are not contracted")
            return "contracted over a part of its channels"
        part = _ordered(x.index, over, ())
        _read(book, weight, x, _spread(part, [weight.axes[a] for a in own], len(weight.axes)))
    else:
        _read(book, weight, x, None)
    free = [weight.axes[a] for a in range(len(weight.axes)) if a not in own]
    rank = len(eqn.outvars[0].aval.shape)
    first = 0 if side == 0 else rank - len(free)
    return _start(book, weight, free, range(first, first + len(free)), rank)


def _ordered(index: np.ndarray, first: Sequence[int], rest: Sequence[int]) -> np.ndarray:
    """Only these axes, in this order; the others have size 1."""
    order = [*first, *rest]
    others = [a for a in range(index.ndim) if a not in order]
    return index.transpose([*order, *others]).reshape([index.shape[a] for a in order])


def _activations(eqn: Any, values: list[Any]) -> Any:
    """A product with an unscaled value passes marks on axes that are not contracted."""
    (lc, rc), (lb, rb) = eqn.params["dimension_numbers"]
    sides = [i for i, v in enumerate(values) if isinstance(v, Scaled)]
    if len(sides) != 1:
        return "contracted with another scaled value"
    over, batch = ((lc, lb), (rc, rb))[sides[0]]
    index = values[sides[0]].index
    if any(index.shape[a] > 1 for a in over):
        return "contracted with an activation"
    free = [a for a in range(index.ndim) if a not in (*over, *batch)]
    rank = len(eqn.outvars[0].aval.shape)
    first = len(batch) if sides[0] == 0 else rank - len(free)
    places = [*range(len(batch)), *range(first, first + len(free))]
    return Scaled(values[sides[0]].root, _spread(_ordered(index, batch, free), places, rank))


def conv(book: Book, eqn: Any, values: list[Any]) -> Any:
    """The same for features; with groups, every output has inputs of its group alone."""
    x, weight = values
    numbers, groups = eqn.params["dimension_numbers"], eqn.params["feature_group_count"]
    if not isinstance(weight, Param) or isinstance(x, Param) or eqn.params["batch_group_count"] != 1:
        return None
    book.uses[weight.path] += 1
    feature, (out, inner) = numbers.lhs_spec[1], (weight.axes[a] for a in numbers.rhs_spec[:2])
    if isinstance(x, Scaled):
        if x.index.size != eqn.invars[0].aval.shape[feature]:
            _read(book, weight, x, None, "scaled along axes of space")
            return "scaled along axes of space where a convolution reads it"
        each = np.repeat(x.index.reshape(groups, -1), book.shapes[weight.path][out] // groups, axis=0)
        each = each if groups > 1 else each[:1]
        _read(book, weight, x, _spread(each, [out, inner], len(weight.axes)))
    else:
        _read(book, weight, x, None)
    return _start(book, weight, [out], [numbers.out_spec[1]], len(weight.axes))
