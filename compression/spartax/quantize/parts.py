"""The arrays inside a compressed weight that quantization turns into codes, each with axes of its own."""

import functools
from typing import Any

import jax

from spartax.arrays import LowRank, Masked, Quantized, QuantizedInputs, Sum
from spartax.arrays.verbs import is_leaf, map_arrays
from spartax.records import Layout

Parts = list[tuple[Any, Layout]]  # (float array, or the codes it became; its layout)


@functools.singledispatch
def parts(weight: Any, layout: Layout) -> Parts:
    """The float arrays of a weight (or the codes they became), with their layouts, in the order of its tree.

    An array inside a leaf unknown here has the axes of the weight if it has its shape, else inputs first, outputs last.
    """
    if not is_leaf(weight):
        return [(weight, layout)]
    last = lambda ndim: Layout(tuple(range(ndim - 1)), (ndim - 1,))  # noqa: E731
    return [(a, layout if a.shape == weight.shape else last(len(a.shape))) for a in _inner(weight)]


def _inner(weight: Any) -> list[Any]:
    found = [x for x in jax.tree.leaves(weight, is_leaf=is_quantized) if is_quantized(x)]
    if not found:
        map_arrays(weight, lambda x: found.append(x) or x)
    return found


def is_quantized(x: Any) -> bool:
    """Whether `x` is a `Quantized` leaf."""
    return isinstance(x, Quantized)


@parts.register
def _(weight: Quantized, layout: Layout) -> Parts:
    return [(weight, layout)]


@parts.register
def _(weight: Masked, layout: Layout) -> Parts:
    return parts(weight.weight, layout)


@parts.register
def _(weight: QuantizedInputs, layout: Layout) -> Parts:
    return parts(weight.weight, layout)


@parts.register
def _(weight: Sum, layout: Layout) -> Parts:
    return [inner for term in weight.terms for inner in parts(term, layout)]


@parts.register
def _(weight: LowRank, layout: Layout) -> Parts:
    """The factor that meets the activation takes the inputs to the rank; the other takes the rank to the outputs."""
    lead, split = weight.stack, weight.ndim - weight.columns
    shifted = lambda axes: tuple(a - split + lead + 1 for a in axes)  # noqa: E731
    if all(axis < split for axis in layout.inputs):
        left = Layout(layout.inputs, (split,), layout.stack)
        right = Layout((lead,), shifted(layout.outputs), layout.stack)
    else:
        left = Layout((split,), layout.outputs, layout.stack)
        right = Layout(shifted(layout.inputs), (lead,), layout.stack)
    return parts(weight.left, left) + parts(weight.right, right)
