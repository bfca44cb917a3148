"""A weight without the outputs that a mask removes: a form of `layer_seconds`."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from spartax.arrays import dense
from spartax.records import Array, Layout


def fewer_outputs(weight: Any, mask: Array, layout: Layout) -> Array:
    """The dense weight with the outputs that the mask keeps, as cutting channels out of the network leaves it.

    Its operation then has fewer outputs and still reads all inputs; `prune.shrink` cuts those of the layers behind too.

    Args:
      weight: array or leaf.
      mask: bool array of its shape, of a pattern of whole outputs such as `prune.channels()`.
      layout: its axes.

    Raises:
      ValueError: a mask that keeps part of an output, several output axes, a stack, or groups of features, whose
        outputs cannot go without their inputs.
    """
    if len(layout.outputs) != 1 or layout.stack or layout.groups > 1:
        raise ValueError(f"fewer_outputs needs a weight with one output axis, no stack and no groups; got {layout}.")
    (axis,) = layout.outputs
    rows = np.moveaxis(np.asarray(mask), axis, 0).reshape(mask.shape[axis], -1)
    if np.any(rows.any(axis=1) != rows.all(axis=1)):
        raise ValueError("fewer_outputs needs a pattern of whole outputs, such as prune.channels().")
    return jnp.take(dense(weight), np.flatnonzero(rows[:, 0]), axis)
