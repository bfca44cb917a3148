"""A quantized weight as the rows that the kernel of `kernels.quantized_matmul` takes."""

import contextlib
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from spartax.arrays import matrix_view, verbs
from spartax.arrays.matrix_view import MatrixView
from spartax.arrays.packed import Packed
from spartax.arrays.permuted import Permuted, full_axes
from spartax.arrays.use import Use
from spartax.kernels import paths, quantized_matmul
from spartax.kernels.quantized_matmul import Form
from spartax.records import Array


class Rows(NamedTuple):
    """Codes of a weight with the outputs first, and how a use reads them.

    Attributes:
      data: `[*stack, *outputs, *inputs]`, the last axis packed below 8 bits.
      axes: which axis of the weight each of these is.
      view: the weight (of one layer of a stack) as a matrix whose rows run in the order of the data.
      form: what the codes mean.
      groups: scales along a row.
    """

    data: Any
    axes: tuple[int, ...]
    view: MatrixView
    form: Form
    groups: int

    @property
    def lead(self) -> int:
        """Axes of the stack."""
        return len(self.axes) - len(self.view.size)

    def flat(self, x: Array) -> Array:
        """`[*stack, *outputs, *inputs] -> [layers, O, K]`."""
        cut = self.lead + self.view.columns
        return x.reshape(math.prod(x.shape[: self.lead]), math.prod(x.shape[self.lead : cut]), math.prod(x.shape[cut:]))


def read(leaf: Any, use: Use) -> Rows | str:
    """The rows of a `Quantized` weight for one use, or why there are none."""
    problem = _misfit(use)
    if problem:
        return problem
    value, axes = _stored(leaf.codes)
    if verbs.is_leaf(value) and not isinstance(value, Packed):
        return f"codes kept as {type(value).__name__}"
    layout, packed = use.layout, value if isinstance(value, Packed) else None
    lead, cut = len(layout.stack), len(layout.stack) + len(layout.outputs)
    if axes[:lead] != layout.stack or set(axes[lead:cut]) != set(layout.outputs):
        if packed:
            return "codes packed with the inputs first"
        wanted = (*layout.stack, *layout.outputs, *layout.inputs)
        axes, value = wanted, jnp.transpose(verbs.dense(value), [axes.index(a) for a in wanted])
    if packed and packed.axis != -1:
        return "codes packed along an output"
    inputs, outputs = axes[cut:], axes[lead:cut]
    if packed and len(inputs) > 1 and packed.data.shape[-1] * 8 != packed.length * packed.bits:
        return "codes with gaps between the rows of inputs"
    groups = _groups(leaf, inputs)
    if groups is None:
        return "scales of entries that are not neighbors"
    shifted = lambda axes: tuple(a - lead for a in axes)  # noqa: E731
    view = MatrixView.of(leaf.shape[lead:], shifted(inputs), shifted(outputs))
    bits, low = (packed.bits, packed.low) if packed else (8, 0)
    return Rows(packed.data if packed else value, axes, view, Form(view.matrix[0], bits, low, leaf.levels), groups)


def _misfit(use: Use) -> str | None:
    layout = use.layout
    if layout.stack != tuple(range(len(layout.stack))):
        return "the stack of weights is not in front"
    if layout.groups > 1 or use.params.get("batch_group_count", 1) > 1:
        return "a convolution in groups"
    if matrix_view.taps(use) > 1:
        return "a convolution of several taps"
    if jnp.float64 in (use.x.dtype, use.out.dtype):
        return "float64, which has no kernel"
    return None if jnp.issubdtype(use.x.dtype, jnp.floating) else "an activation that is not floating"


def _stored(codes: Any) -> tuple[Any, tuple[int, ...]]:
    """The codes as they are stored, and which axis of the weight each of their axes is."""
    if not isinstance(codes, Permuted):
        return codes, tuple(range(len(codes.shape)))
    axes = full_axes(codes.axes, codes.ndim)
    return codes.value, tuple(axes.index(a) for a in range(codes.ndim))


def _groups(leaf: Any, inputs: tuple[int, ...]) -> int | None:
    """Scales along a row, or None if the entries of a group are not neighbors in it."""
    few, full = [leaf.scale.shape[a] for a in inputs], [leaf.shape[a] for a in inputs]
    first = next((i for i, (a, b) in enumerate(zip(few, full)) if a != b), len(inputs))
    return math.prod(few) if all(n == 1 for n in few[first + 1 :]) else None


def choose(leaf: Any, found: Rows, use: Use, *, int8: bool = False) -> paths.Choice:
    """The path of the product, with an activation of floats or of int8 codes."""
    zero = leaf.zero is not None
    rows, outputs = matrix_view.batch(use), found.view.matrix[1]
    case = quantized_matmul.Case(rows, outputs, found.groups, zero, found.form, jnp.dtype(use.x.dtype), int8)
    return quantized_matmul.choose(case)


def multiply(leaf: Any, found: Rows, use: Use, x: Array) -> Array:
    """The result of the use, for an activation of floats or of int8 codes (which count as numbers)."""
    int8 = x.dtype == jnp.int8
    path = choose(leaf, found, use, int8=int8).path or "reference"
    data, scale, zero = matrices(leaf, found)

    def product(layer: int, rows: Array) -> Array:
        own = (data[layer], scale[layer], None if zero is None else zero[layer])
        return quantized_matmul.quantized_matmul(rows, *own, found.form, path=path, int8=int8)

    with precision(use):
        return matrix_view.multiply(found.view, use, x, product, found.lead)


def matrices(leaf: Any, found: Rows) -> tuple[Array, Array, Array | None]:
    """Data `[layers, O, bytes]`, scales and zero points `[layers, O, groups]`, as the kernel takes them."""
    zero = None if leaf.zero is None else _every_output(leaf.zero, leaf, found)
    return found.flat(found.data), _every_output(leaf.scale, leaf, found), zero


def _every_output(scale: Array, leaf: Any, found: Rows) -> Array:
    """Scales `[layers, O, groups]`."""
    scale, cut = jnp.transpose(scale, found.axes), found.lead + found.view.columns
    return found.flat(jnp.broadcast_to(scale, (*(leaf.shape[a] for a in found.axes[:cut]), *scale.shape[cut:])))


def precision(use: Use) -> contextlib.AbstractContextManager:
    """Within it, products have the precision that the use asks for."""
    asked = use.params["precision"]
    asked = asked[0] if isinstance(asked, tuple) else asked
    named = isinstance(asked, lax.Precision) and asked is not lax.Precision.DEFAULT
    return jax.default_matmul_precision(asked.name.lower()) if named else contextlib.nullcontext()
