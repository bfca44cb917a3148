"""Weights as matrices `[outputs, inputs]`: a row for each output unit, columns in the order of `collect`."""

import math

import jax.numpy as jnp
import numpy as np

from spartax.records import Array, Layout


def to_rows(weight: Array, layout: Layout) -> Array:
    """`[*stack, O, I]`, or `[*stack, groups, O / groups, I]` for a grouped convolution.

    Columns are in the order of `layout.inputs`, as are the rows of `Evidence.moments`.
    """
    axes = _axes(layout)
    moved, lead = jnp.transpose(weight, axes), len(layout.stack)
    outputs = math.prod(weight.shape[a] for a in layout.outputs)
    group = (layout.groups,) if layout.groups > 1 else ()
    return moved.reshape(*moved.shape[:lead], *group, outputs // layout.groups, -1)


def from_rows(rows: Array, shape: tuple[int, ...], layout: Layout) -> Array:
    """The weight of this shape whose `to_rows` are `rows`."""
    axes = _axes(layout)
    return jnp.transpose(rows.reshape([shape[a] for a in axes]), np.argsort(axes).tolist())


def _axes(layout: Layout) -> tuple[int, ...]:
    return (*layout.stack, *layout.outputs, *layout.inputs)
