"""A weight with any axes seen as one matrix `[inputs, outputs]`, and its contractions as products of matrices."""

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from spartax.arrays.use import Use
from spartax.records import Array


class MatrixView(NamedTuple):
    """How the axes of a weight (behind those of a stack) make up a matrix.

    Attributes:
      size: sizes of the axes of the matrix, inputs before outputs; the last axis of each side runs fastest.
      columns: how many of these axes are outputs.
      order: axis `k` of the weight is axis `order[k]` of the matrix.
    """

    size: tuple[int, ...]
    columns: int
    order: tuple[int, ...]

    @classmethod
    def of(cls, shape: tuple[int, ...], inputs: tuple[int, ...], outputs: tuple[int, ...]) -> "MatrixView":
        """The view of a weight of this shape whose axes `inputs` are the rows and `outputs` the columns.

        Raises:
          ValueError: inputs and outputs do not name each axis once.
        """
        axes = (*inputs, *outputs)
        if sorted(axes) != list(range(len(shape))):
            raise ValueError(
                f"inputs and outputs must name each of {len(shape)} axes once; got {inputs} and {outputs}."
            )
        return cls(tuple(shape[a] for a in axes), len(outputs), tuple(int(a) for a in np.argsort(axes)))

    @property
    def cut(self) -> int:
        """How many axes are inputs."""
        return len(self.size) - self.columns

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight."""
        return tuple(self.size[a] for a in self.order)

    @property
    def matrix(self) -> tuple[int, int]:
        """Rows and columns of the matrix."""
        return math.prod(self.size[: self.cut]), math.prod(self.size[self.cut :])

    def rows_of(self, x: Any) -> Any:
        """The matrix of an array in the shape of the weight."""
        return x.transpose(np.argsort(self.order)).reshape(self.matrix)

    def weight_of(self, matrix: Array) -> Array:
        """The weight of a matrix."""
        return matrix.reshape(self.size).transpose(self.order)

    def transposed(self, axes: tuple[int, ...], stack: int) -> "MatrixView | None":
        """The view after a permutation of the weight's axes that leaves the stack in front."""
        if axes[:stack] != tuple(range(stack)):
            return None
        return self._replace(order=tuple(self.order[a - stack] for a in axes[stack:]))

    def reshaped(self, shape: tuple[int, ...]) -> "MatrixView | None":
        """The view after a reshape that moves no entry from rows to columns."""
        if self.order != tuple(range(len(self.order))):
            return None
        cuts = [i for i in range(1, len(shape)) if math.prod(shape[:i]) == self.matrix[0]]
        return MatrixView(shape, len(shape) - cuts[0], tuple(range(len(shape)))) if cuts else None


def side(view: MatrixView, use: Use, stack: int = 0) -> str | None:
    """Which side of the matrix the use contracts, "inputs" or "outputs", all of it; None for any other contraction."""
    layout = use.layout
    if layout.stack != tuple(range(stack)) or layout.groups > 1 or use.params.get("batch_group_count", 1) > 1:
        return None
    contracted = {view.order[a - stack] for a in layout.inputs}
    inputs, outputs = set(range(view.cut)), set(range(view.cut, len(view.size)))
    if contracted == inputs:
        return "inputs"
    return "outputs" if contracted == outputs and use.op == "dot_general" else None


def batch(use: Use) -> int:
    """Rows of the activations in the product of matrices (of one weight of a stack)."""
    layout = use.layout
    return math.prod(use.out.shape) // math.prod(use.weight.shape[a] for a in (*layout.outputs, *layout.stack))


def taps(use: Use) -> int:
    """Positions that a convolution kernel looks at; 1 for a product."""
    return math.prod(use.weight.shape[a] for a in use.layout.inputs[:-1]) if use.op != "dot_general" else 1


def multiply(view: MatrixView, use: Use, x: Array, product: Callable[[int, Array], Array], stack: int = 0) -> Array:
    """The result of a use that contracts one side of the matrix.

    Args:
      view: of one weight of the stack.
      use: the contraction.
      x: the activation.
      product: (number of the weight in the flattened stack, `[B, contracted]`) -> `[B, other side]`.
      stack: how many axes of the weight are a stack.
    """
    if use.op == "conv_general_dilated":
        return _convolve(view, use, x, product)
    wc, xc, _, xb = use.dims
    first = [view.order[a - stack] for a in wc]  # the axis of the matrix that each contracted axis is
    met = [xc[i] for i in np.argsort(first)]
    free = [a for a in range(x.ndim) if a not in xc + xb]
    rows = x.transpose(*xb, *free, *met).reshape([math.prod(x.shape[a] for a in axes) for axes in (xb, free, met)])
    out = jnp.stack([product(i, part) for i, part in enumerate(rows)]) if stack else product(0, rows[0])[None]
    rest = [a for a in range(len(view.size)) if a not in first]
    out = out.reshape(*(x.shape[a] for a in (*xb, *free)), *(view.size[a] for a in rest))
    lead, mine = len(xb), len(xb) + len(free)
    wanted = [mine + rest.index(a) for a in view.order if a in rest]
    between = list(range(lead, mine))
    axes = [*range(lead), *wanted, *between] if use.left else [*range(lead), *between, *wanted]
    return out.transpose(axes).astype(use.out.dtype)


def _convolve(view: MatrixView, use: Use, x: Array, product: Callable[[int, Array], Array]) -> Array:
    rows = _patches(view, use, x)
    numbers = use.params["dimension_numbers"]
    flat = rows.reshape(math.prod(rows.shape[:-1]), rows.shape[-1])
    out = product(0, flat).reshape(*rows.shape[:-1], use.out.shape[numbers.out_spec[1]])
    where = (numbers.out_spec[0], *numbers.out_spec[2:], numbers.out_spec[1])  # of [N, *spatial, O] in the result
    return out.transpose(np.argsort(where)).astype(use.out.dtype)


def _patches(view: MatrixView, use: Use, x: Array) -> Array:
    """`[N, *spatial, rows of the matrix]`: what each output position of a convolution looks at."""
    lhs, rhs, out = use.params["dimension_numbers"]
    strides, dilation = use.params["window_strides"], use.params["rhs_dilation"]
    window, places = (
        [shape[a] for a in axes] for shape, axes in ((use.weight.shape, rhs[2:]), (use.out.shape, out[2:]))
    )
    config = [(low, high, d - 1) for (low, high), d in zip(use.params["padding"], use.params["lhs_dilation"])]
    x = lax.pad(x.transpose(lhs[0], *lhs[2:], lhs[1]), jnp.zeros((), x.dtype), [(0, 0, 0), *config, (0, 0, 0)])

    def tap(offsets: tuple[int, ...]) -> Array:
        low = [o * d for o, d in zip(offsets, dilation)]
        high = [a + (n - 1) * s + 1 for a, n, s in zip(low, places, strides)]
        return lax.slice(x, (0, *low, 0), (x.shape[0], *high, x.shape[-1]), (1, *strides, 1))

    found = jnp.stack([tap(offsets) for offsets in itertools.product(*map(range, window))], axis=-2)
    found = found.reshape(*found.shape[:-2], *window, x.shape[-1])
    lead = found.ndim - len(window) - 1
    inner = np.argsort([view.order[a] for a in (*rhs[2:], rhs[1])])
    found = found.transpose(*range(lead), *(lead + int(i) for i in inner))
    return found.reshape(*found.shape[:lead], math.prod(found.shape[lead:]))
