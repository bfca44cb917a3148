"""Convolution kernels in one order of axes, for the factorizations that treat space apart."""

import jax.numpy as jnp

from spartax.records import Array, Layout


def axes_of(layout: Layout) -> tuple[int, ...]:
    """Where `[*spatial, I, O]` are stored."""
    return (*layout.inputs, *layout.outputs)


def is_spatial(weight: Array, layout: Layout, dimensions: int | None = None, *, grouped: bool = False) -> bool:
    """Whether the weight is an unstacked convolution kernel with some window larger than one.

    Args:
      weight: the kernel.
      layout: its axes.
      dimensions: how many spatial axes it must have; any number above zero if None.
      grouped: whether it may have groups.
    """
    spatial = layout.inputs[:-1]
    plain = (grouped or layout.groups == 1) and not layout.stack and len(layout.outputs) == 1
    right = len(spatial) > 0 if dimensions is None else len(spatial) == dimensions
    return plain and right and any(weight.shape[a] > 1 for a in spatial)


def canonical(weight: Array, layout: Layout) -> Array:
    """The kernel as `[*spatial, I, O]`."""
    return jnp.transpose(weight, axes_of(layout))


def unfolding(kernel: Array, axis: int) -> Array:
    """`[n, all the rest]` along one axis."""
    return jnp.moveaxis(kernel, axis, 0).reshape(kernel.shape[axis], -1)
