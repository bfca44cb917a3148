"""`fast_gradients(fn)`: convolutions whose gradients are fast on CPU, inside loops too.

XLA on CPU brings convolutions into the layout of its fast routine only outside of `lax` loops and branches. Inside,
those that JAX makes for gradients take a naive path: several times slower in the input, up to forty in the kernel.
Here every convolution is written in that layout, channels last, and so are its two gradients. Attacks, per-example
gradients and products with the Hessian live inside such loops.

The gradient in the kernel sums over all positions of all examples. For whole batches that sum leaves the caches and the
fast routine is up to ten times slower than the forward pass, so here it is taken over a few examples at a time.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import primitives

from spartax.program import walk
from spartax.records import Array

# examples of which a kernel gradient is summed at once: what fills a vector register, half where outputs are large
FEW, SMALL, LARGE = 8, 4, 2**19


class Window(NamedTuple):
    """How the kernel moves; one entry a spatial axis.

    Attributes:
      strides: of the window.
      padding: of the dilated input, low and high.
      spread: dilation of the input.
      dilation: of the kernel.
      groups: of the features.
      precision: of the products.
    """

    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    spread: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    precision: Any


def fast_gradients(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, whose convolutions have gradients that XLA on CPU runs well inside loops.

    Values and gradients agree up to rounding; reverse-mode differentiation, of any order, is supported, forward mode is
    not. For compressed params write `fast_gradients(compressed(fn))`. On other platforms it is the function itself.

    Args:
      fn: a pure function of arrays.

    Returns:
      A function of the same signature (not jitted; meant to be used inside a jitted loop).
    """
    return walk.rewritten(fn, _visit) if jax.default_backend() == "cpu" else fn


def _visit(eqn: Any, values: list[Any], trips: int) -> list[Any] | None:
    if eqn.primitive is not primitives.conv_general_dilated_p or eqn.params["batch_group_count"] > 1:
        return None
    floats = jnp.issubdtype(values[0].dtype, jnp.floating)
    return [convolve(eqn.params, *values)] if floats else None


def convolve(params: dict[str, Any], x: Array, kernel: Array) -> Array:
    """`conv_general_dilated(x, kernel, **params)` with the gradients written out."""
    lhs, rhs, out = params["dimension_numbers"]
    names = ("window_strides", "padding", "lhs_dilation", "rhs_dilation", "feature_group_count", "precision")
    window = Window(*(_hashable(params[name]) for name in names))
    x = jnp.transpose(x, (lhs[0], *lhs[2:], lhs[1]))
    kernel = jnp.transpose(kernel, (*rhs[2:], rhs[1], rhs[0]))
    last = _convolved(window, jnp.dtype(params["preferred_element_type"] or x.dtype), x, kernel)
    return jnp.transpose(last, sorted(range(len(out)), key=(out[0], *out[2:], out[1]).__getitem__))


def _hashable(value: Any) -> Any:
    return tuple(_hashable(v) for v in value) if isinstance(value, list | tuple) else value


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _convolved(window: Window, kind: jnp.dtype, x: Array, kernel: Array) -> Array:
    """`x [B, *in, I]` and `kernel [*size, I / groups, O]` -> `[B, *out, O]` of dtype `kind`."""
    return _plain(window, kind, x, kernel)


def _plain(window: Window, kind: jnp.dtype, x: Array, kernel: Array) -> Array:
    spatial = range(1, x.ndim - 1)
    last = (0, x.ndim - 1, *spatial)
    numbers = lax.ConvDimensionNumbers(last, (x.ndim - 1, x.ndim - 2, *range(x.ndim - 2)), last)
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=window.strides,
        padding=window.padding,
        lhs_dilation=window.spread,
        rhs_dilation=window.dilation,
        dimension_numbers=numbers,
        feature_group_count=window.groups,
        precision=window.precision,
        preferred_element_type=kind,
    )


def _forward(window: Window, kind: jnp.dtype, x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _convolved(window, kind, x, kernel), (x, kernel)


def _backward(window: Window, kind: jnp.dtype, saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    del kind
    x, kernel = saved
    wide = jnp.result_type(g, x)
    given = [a.astype(wide) for a in (x, kernel, g)]
    of_input, of_kernel = (gradient(window, *given) for gradient in (_of_input, _of_kernel))
    return of_input.astype(x.dtype), of_kernel.astype(kernel.dtype)


_convolved.defvjp(_forward, _backward)


def _of_input(window: Window, x: Array, kernel: Array, g: Array) -> Array:
    """Gradient in the input: a convolution of `g` with the flipped, transposed kernel.

    A barrier keeps XLA from folding the flip into the convolution, which its fast routine does not take. That routine
    does not take depthwise ones either, for which the gradient of JAX is the faster.
    """
    if window.groups == x.shape[-1] > 1:
        return jax.linear_transpose(lambda x: _plain(window, g.dtype, x, kernel), x)(g)[0]
    groups, sides = window.groups, range(x.ndim - 2)
    *size, inputs, outputs = kernel.shape
    flipped = jnp.flip(kernel, tuple(sides)).reshape(*size, inputs, groups, outputs // groups)
    flipped = jnp.swapaxes(flipped, -1, -3).reshape(*size, outputs // groups, groups * inputs)
    padding = []
    for i in sides:
        reach = (size[i] - 1) * window.dilation[i]
        low = reach - window.padding[i][0]
        padding.append((low, _dilated(x, i, window.spread) + reach - _dilated(g, i, window.strides) - low))
    back = window._replace(strides=window.spread, spread=window.strides, padding=tuple(padding))
    return _convolved(back, g.dtype, g, lax.optimization_barrier(flipped))


@functools.partial(jax.jit, static_argnums=0, inline=True)  # compiled once where nothing else is
def _of_kernel(window: Window, x: Array, kernel: Array, g: Array) -> Array:
    """Gradient in the kernel, by a few examples at a time, summed in float32 or wider.

    Those that meet lie far apart in the batch, so that devices which divide their number keep their examples. On a mesh
    with explicit axes JAX wants to be told where results lie, which its own gradient knows.
    """
    if any(jax.typeof(x).sharding.spec):
        return jax.linear_transpose(lambda kernel: _plain(window, g.dtype, x, kernel), kernel)(g)[0]
    summed = functools.partial(_summed, window, kernel.shape)
    if not all(isinstance(length, int) for length in g.shape):  # of a program that is exported with an open batch
        return summed(x, g)
    few = FEW if FEW * math.prod(g.shape[1:]) <= LARGE else SMALL
    turns = len(x) // few
    if turns < 2:
        return summed(x, g)
    main = [a[: few * turns] for a in (x, g)] if len(x) % few else (x, g)
    pairs = [jnp.moveaxis(a.reshape(few, turns, *a.shape[1:]), 1, 0) for a in main]
    # the sum starts with examples, since zeros would not vary over the devices of `shard_map`
    if len(x) % few:
        start = [a[few * turns :] for a in (x, g)]
    else:
        start, pairs = [a[0] for a in pairs], [a[1:] for a in pairs]
    return lax.scan(lambda total, pair: (total + summed(*pair), None), summed(*start), pairs)[0]


def _summed(window: Window, shape: tuple[int, ...], x: Array, g: Array) -> Array:
    """A convolution of the input with `g`, in which examples are features.

    Groups of features stay groups: `x` becomes `[I / groups, *in, groups * B]`.
    """
    split = x.reshape(*x.shape[:-1], window.groups, -1)
    x = jnp.moveaxis(split, (-1, -2, 0), (0, -2, -1)).reshape(split.shape[-1], *x.shape[1:-1], -1)
    padding = []
    for i in range(x.ndim - 2):
        low, long = window.padding[i][0], (shape[i] - 1) * window.dilation[i]
        padding.append((low, long + _dilated(g, i, window.strides) - _dilated(x, i, window.spread) - low))
    back = window._replace(strides=window.dilation, dilation=window.strides, padding=tuple(padding))
    wide = jnp.promote_types(g.dtype, jnp.float32)
    return jnp.moveaxis(_convolved(back, wide, x, jnp.moveaxis(g, 0, -2)), 0, -2)


def _dilated(x: Array, axis: int, dilation: Sequence[int]) -> int:
    """Length of a spatial axis with the gaps of a dilation."""
    return (x.shape[1 + axis] - 1) * dilation[axis] + 1
