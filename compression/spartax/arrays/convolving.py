"""Convolution kernels made of thin ones: the numbers of the original convolution, applied axis by axis."""

import math
from collections.abc import Collection
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from spartax.arrays import verbs
from spartax.arrays.use import Use
from spartax.records import Array


def order(axes: tuple[int, ...]) -> tuple[int, ...]:
    """The permutation from `[*spatial, I, O]` to memory, where `axes` says at which axis each of them is stored."""
    return tuple(int(i) for i in np.argsort(axes))


def stored(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    """A shape `[*spatial, I, O]` in the order of memory."""
    return tuple(shape[i] for i in order(axes))


def moved(axes: tuple[int, ...], permutation: tuple[int, ...]) -> tuple[int, ...]:
    """Where the axes are stored after a transpose."""
    return tuple(permutation.index(a) for a in axes)


def fits(use: Use, axes: tuple[int, ...], grouped: bool = False) -> bool:
    """Whether the use is a convolution over these axes `[*spatial, I, O]`, in groups only if `grouped`."""
    if use.op != "conv_general_dilated" or use.params["batch_group_count"] > 1:
        return False
    if use.layout.groups > 1 and not grouped:
        return False
    return (*use.layout.inputs, *use.layout.outputs) == axes


def positions(use: Use) -> tuple[int, int]:
    """Number of image positions that the convolution reads and writes, over the whole batch."""
    read = math.prod(use.x.shape) // use.x.shape[use.params["dimension_numbers"].lhs_spec[1]]
    written = math.prod(use.out.shape) // use.out.shape[use.params["dimension_numbers"].out_spec[1]]
    return read, written


def convolve(use: Use, kernel: Any, x: Array, along: Collection[int], groups: int = 1) -> Array:
    """A convolution with `kernel [*spatial, I / groups, O]` that strides, pads and dilates only along some axes.

    Args:
      use: the original convolution.
      kernel: array or leaf.
      x: activation, its axes in the order of the original input.
      along: spatial axes (0, 1, ...) that take the numbers of the original; the kernel has length 1 along the others.
      groups: feature groups.

    Returns:
      The result, its axes in the order of the original input too, so that another one can follow.
    """
    numbers, spatial = use.params["dimension_numbers"], range(kernel.ndim - 2)
    pick = lambda name, other: tuple(use.params[name][i] if i in along else other for i in spatial)  # noqa: E731
    params = {
        **use.params,
        "window_strides": pick("window_strides", 1),
        "padding": pick("padding", (0, 0)),
        "lhs_dilation": pick("lhs_dilation", 1),
        "rhs_dilation": pick("rhs_dilation", 1),
        "dimension_numbers": lax.ConvDimensionNumbers(
            numbers.lhs_spec, (kernel.ndim - 1, kernel.ndim - 2, *spatial), numbers.lhs_spec
        ),
        "feature_group_count": groups,
    }
    return verbs.product(kernel, Use.of(use.primitive, params, False, kernel, x), x)


def pointwise(use: Use, kernel: Array, x: Array) -> Array:
    """`x`, in the order of the original input, with its features multiplied by `kernel [r, s]`: a 1 x 1 convolution."""
    feature = use.params["dimension_numbers"].lhs_spec[1]
    out = lax.dot_general(x, kernel, (((feature,), (0,)), ((), ())), precision=use.params["precision"])
    return jnp.moveaxis(out, -1, feature).astype(x.dtype)


def apart(use: Use, x: Array, groups: int) -> Array:
    """`x`, in the order of the original input, with its groups of features as examples: `N * groups` of them."""
    if groups == 1:
        return x
    ends = use.params["dimension_numbers"].lhs_spec[:2]
    x = jnp.moveaxis(x, ends, (0, -1))
    x = jnp.moveaxis(x.reshape(*x.shape[:-1], groups, -1), -2, 1)
    return jnp.moveaxis(x.reshape(-1, *x.shape[2:]), (0, -1), ends)


def together(use: Use, kernel: Array, x: Array, groups: int) -> Array:
    """`pointwise` on what `apart` gave: each group has its own columns of `kernel [r, s]`, `s / groups` in a row."""
    if groups == 1:
        return pointwise(use, kernel, x)
    ends = use.params["dimension_numbers"].lhs_spec[:2]
    x = jnp.moveaxis(x, ends, (0, -1))
    x = x.reshape(-1, groups, *x.shape[1:])
    columns = kernel.reshape(kernel.shape[0], groups, -1)
    dims = (((x.ndim - 1,), (0,)), ((1,), (1,)))
    out = jnp.moveaxis(lax.dot_general(x, columns, dims, precision=use.params["precision"]), 0, -2)
    return jnp.moveaxis(out.reshape(*out.shape[:-2], -1), (0, -1), ends).astype(x.dtype)


def finish(use: Use, x: Array) -> Array:
    """The result in the order and dtype of the original output."""
    numbers = use.params["dimension_numbers"]
    turn = [numbers.lhs_spec[numbers.out_spec.index(axis)] for axis in range(x.ndim)]
    return jnp.transpose(x, turn).astype(use.out.dtype)
