"""`fast_gradients(fn)`: convolutions whose input gradient stays fast inside loops on CPU.

XLA on CPU folds the kernel flip of a convolution's input gradient into the convolution, and inside a `lax` loop that
form takes a naive path, several times slower than the same gradient outside. Writing the flipped, transposed kernel out
behind an optimization barrier avoids it. Attacks and adversarial training live inside such loops.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import primitives

from spartax.program import walk
from spartax.records import Array


def fast_gradients(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, whose convolutions have a backward rule that XLA on CPU runs well inside loops.

    Values are the same and gradients agree up to rounding; only reverse-mode differentiation is supported. For
    compressed params write `fast_gradients(compressed(fn))`.

    Args:
      fn: a pure function of arrays.

    Returns:
      A function of the same signature (not jitted; meant to be used inside a jitted loop).
    """
    return walk.rewritten(fn, _visit)


def _visit(eqn: Any, values: list[Any], trips: int) -> list[Any] | None:
    if eqn.primitive is not primitives.conv_general_dilated_p or eqn.params["batch_group_count"] > 1:
        return None
    depthwise = values[1].shape[eqn.params["dimension_numbers"].rhs_spec[1]] == 1
    return None if depthwise else [convolve(eqn.params, *values)]  # XLA's own is faster for depthwise ones


def convolve(params: dict[str, Any], x: Array, kernel: Array) -> Array:
    """`conv_general_dilated(x, kernel, **params)` with the explicit backward rule."""

    def plain(x: Array, kernel: Array) -> Array:
        return primitives.conv_general_dilated_p.bind(x, kernel, **params)

    def backward(saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
        x, kernel = saved
        kernel_gradient = jax.vjp(lambda k: plain(x, k), kernel)[1](g)[0]
        return input_gradient(params, x, kernel, g), kernel_gradient

    rule = jax.custom_vjp(plain)
    rule.defvjp(lambda x, kernel: (plain(x, kernel), (x, kernel)), backward)
    return rule(x, kernel)


def input_gradient(params: dict[str, Any], x: Array, kernel: Array, g: Array) -> Array:
    """Gradient of a convolution in its input: a convolution of `g` with the flipped, transposed kernel."""
    lhs, rhs, out = params["dimension_numbers"]
    groups, spatial = params["feature_group_count"], len(rhs) - 2
    flipped = jnp.flip(jnp.transpose(kernel, (*rhs[2:], rhs[1], rhs[0])), tuple(range(spatial)))
    *size, inputs, outputs = flipped.shape  # [*spatial, I / groups, O] -> [*spatial, O / groups, I]
    flipped = jnp.moveaxis(flipped.reshape(*size, inputs, groups, outputs // groups), -1, spatial)
    flipped = jnp.swapaxes(flipped, -1, -2).reshape(*size, outputs // groups, groups * inputs)
    padding = [
        _padding(x.shape[lhs[2 + i]], kernel.shape[rhs[2 + i]], g.shape[out[2 + i]], i, params) for i in range(spatial)
    ]
    numbers = lax.ConvDimensionNumbers(out, (spatial + 1, spatial, *range(spatial)), lhs)
    return lax.conv_general_dilated(
        g,
        lax.optimization_barrier(flipped),
        window_strides=params["lhs_dilation"],
        padding=padding,
        lhs_dilation=params["window_strides"],
        rhs_dilation=params["rhs_dilation"],
        dimension_numbers=numbers,
        feature_group_count=groups,
        precision=params["precision"],
        preferred_element_type=params["preferred_element_type"],
    ).astype(x.dtype)


def _padding(size: int, kernel: int, out: int, axis: int, params: dict[str, Any]) -> tuple[int, int]:
    """Padding that makes the gradient as long as the (dilated) input was."""
    reach = (kernel - 1) * params["rhs_dilation"][axis]
    low = reach - params["padding"][axis][0]
    dilated_in = (size - 1) * params["lhs_dilation"][axis] + 1
    dilated_out = (out - 1) * params["window_strides"][axis] + 1
    return low, dilated_in + reach - dilated_out - low
