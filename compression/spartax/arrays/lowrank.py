"""`LowRank`: a weight as the product of two thin factors."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from spartax.arrays import verbs
from spartax.arrays.use import Use
from spartax.records import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class LowRank(verbs.Leaf):
    """`dense = left . right`: left `[*rows, r]`, right `[r, *columns]` -> `[*rows, *columns]`.

    A Dense kernel `[I, O]` has rows `(I,)`; a convolution kernel `[H, W, I, O]` has rows `(H, W, I)`, so that `left` is
    a thin convolution and `right` a 1 x 1 one. Leading axes in front of both are a stack.

    Attributes:
      left: array or leaf `[*stack, *rows, r]`.
      right: array or leaf `[*stack, r, *columns]`.
      columns: how many axes of the weight belong to `right`.
    """

    left: Any
    right: Any
    columns: int = dataclasses.field(default=1, metadata={"static": True})

    @property
    def stack(self) -> int:
        """Number of leading stack axes."""
        return len(self.right.shape) - 1 - self.columns

    @property
    def rank(self) -> int:
        """Number of columns of `left`."""
        return self.left.shape[-1]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the product."""
        return (*self.left.shape[:-1], *self.right.shape[self.stack + 1 :])

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the product."""
        return np.result_type(verbs.float_dtype(self.left), verbs.float_dtype(self.right))


@verbs.dense.register
def _(leaf: LowRank) -> Array:
    left, right = verbs.dense(leaf.left), verbs.dense(leaf.right)
    product = lambda a, b: jnp.tensordot(a, b, 1, precision=lax.Precision.HIGHEST)  # noqa: E731
    for _ in range(leaf.stack):
        product = jax.vmap(product)
    return product(left, right)


@verbs.pack.register
def _(leaf: LowRank) -> LowRank:
    return dataclasses.replace(leaf, left=verbs.pack(leaf.left), right=verbs.pack(leaf.right))


def first_factor(leaf: LowRank, use: Use) -> str | None:
    """Which factor meets the activation first: the one that holds all contracted axes, and no other axis."""
    split = leaf.ndim - leaf.columns
    rows, columns = set(range(leaf.stack, split)), set(range(split, leaf.ndim))
    layout = use.layout
    if layout.groups > 1 or use.params.get("batch_group_count", 1) > 1 or layout.stack != tuple(range(leaf.stack)):
        return None
    if set(layout.inputs) == rows:
        return "left"
    return "right" if set(layout.inputs) == columns else None


@verbs.plan.register
def _(leaf: LowRank, use: Use) -> verbs.Plan:
    if first_factor(leaf, use) is None:
        return verbs.Plan(None, "LowRank: the contracted axes are not those of one factor", use.macs)
    outputs = math.prod(use.weight.shape[a] for a in use.layout.outputs)
    thin = use.macs // max(outputs, 1) * leaf.rank + use.trips * math.prod(use.out.shape) * leaf.rank
    rebuild = use.trips * math.prod(leaf.shape) * leaf.rank + use.macs
    if thin > rebuild:
        return verbs.Plan(None, f"LowRank: rank {leaf.rank} costs more than the dense weight here", rebuild)
    name = "thin convolution then 1x1" if use.op == "conv_general_dilated" else "two thin products"
    kinds = dict.fromkeys(type(f).__name__ for f in (leaf.left, leaf.right) if verbs.is_leaf(f))
    made = f", {' and '.join(kinds)} factors made dense" if kinds else ""
    return verbs.Plan(f"LowRank: {name}", f"rank {leaf.rank}{made}", thin)


@verbs.contract.register
def _(leaf: LowRank, use: Use, x: Array) -> Array:
    order = (leaf.left, leaf.right) if first_factor(leaf, use) == "left" else (leaf.right, leaf.left)
    first, second = (verbs.dense(f) for f in order)
    if use.op == "conv_general_dilated":
        return _convolve(first, second, order[0] is leaf.left, use, x)
    return _multiply(first, second, order[0] is leaf.left, leaf.stack, use, x)


def _convolve(first: Array, second: Array, forward: bool, use: Use, x: Array) -> Array:
    """Thin convolution with the original numbers (the rank stands where the output axis stood), then 1 x 1."""
    thin = use.apply(first, x)
    feature = use.params["dimension_numbers"].out_spec[1]
    rank_axis = 0 if forward else second.ndim - 1
    out = jnp.tensordot(thin, second, ((feature,), (rank_axis,)), precision=use.params["precision"])
    return jnp.moveaxis(out, -1, feature).astype(use.out.dtype)


def _multiply(first: Array, second: Array, forward: bool, stack: int, use: Use, x: Array) -> Array:
    """X . first over the contracted axes, then . second over the rank; both products keep the stack in front."""
    contracted, x_contracted, _, x_batch = use.dims
    lead = tuple(range(stack))
    before = len(use.weight.shape) - (first.ndim - stack - 1)  # where the columns begin in the weight
    own = contracted if forward else tuple(a - before + stack + 1 for a in contracted)
    precision, kind = use.params["precision"], use.params["preferred_element_type"]
    dot = lambda a, b, dims: lax.dot_general(a, b, dims, precision, kind)  # noqa: E731
    thin = dot(x, first, ((x_contracted, own), (x_batch, lead)))  # [*stack, *x_free, r]
    rank_axis = stack if forward else second.ndim - 1
    thin = thin.astype(x.dtype)
    out = dot(thin, second, (((thin.ndim - 1,), (rank_axis,)), (lead, lead)))  # [*stack, *x_free, *w_free]
    if use.left:
        w_free = second.ndim - 1 - stack
        x_free = out.ndim - stack - w_free
        out = jnp.transpose(out, (*lead, *range(stack + x_free, out.ndim), *range(stack, stack + x_free)))
    return out.astype(use.out.dtype)


@verbs.transpose.register
def _(leaf: LowRank, axes: tuple[int, ...]) -> LowRank | None:
    """A permutation that keeps rows and columns apart permutes each factor; swapping the two swaps the factors."""
    split, stack = leaf.ndim - leaf.columns, leaf.stack
    lead, rest = axes[:stack], axes[stack:]
    n_rows = split - stack
    if lead != tuple(range(stack)):
        return None
    if set(rest[:n_rows]) == set(range(stack, split)):
        left = _permute(leaf.left, (*lead, *rest[:n_rows], split))
        right = _permute(leaf.right, (*lead, stack, *(a - n_rows + 1 for a in rest[n_rows:])))
        columns = leaf.columns
    elif set(rest[: leaf.columns]) == set(range(split, leaf.ndim)):
        left = _permute(leaf.right, (*lead, *(a - n_rows + 1 for a in rest[: leaf.columns]), stack))
        right = _permute(leaf.left, (*lead, split, *rest[leaf.columns :]))
        columns = n_rows
    else:
        return None
    return None if left is None or right is None else LowRank(left, right, columns)


def _permute(x: Any, axes: tuple[int, ...]) -> Any:
    if axes == tuple(range(len(axes))):
        return x
    return verbs.transpose(x, axes) if verbs.is_leaf(x) else jnp.transpose(x, axes)


@verbs.reshape.register
def _(leaf: LowRank, shape: tuple[int, ...]) -> LowRank | None:
    """A reshape that does not move entries between rows and columns reshapes each factor."""
    rows = math.prod(leaf.shape[: leaf.ndim - leaf.columns])
    cuts = [i for i in range(len(shape) + 1) if math.prod(shape[:i]) == rows]
    if leaf.stack or not cuts or verbs.is_leaf(leaf.left) or verbs.is_leaf(leaf.right):
        return None
    cut = cuts[0]
    left = leaf.left.reshape(*shape[:cut], leaf.rank)
    return LowRank(left, leaf.right.reshape(leaf.rank, *shape[cut:]), len(shape) - cut)


@verbs.astype.register
def _(leaf: LowRank, dtype: Any) -> LowRank | None:
    left, right = (verbs.astype(f, dtype) if verbs.is_leaf(f) else f.astype(dtype) for f in (leaf.left, leaf.right))
    return None if left is None or right is None else LowRank(left, right, leaf.columns)


@verbs.take.register
def _(leaf: LowRank, rows: Array) -> Array | None:
    """Rows of `left` times all of `right`."""
    if leaf.stack or leaf.ndim - leaf.columns != 1:
        return None
    left = verbs.take(leaf.left, rows) if verbs.is_leaf(leaf.left) else leaf.left[rows]
    if left is None:
        return None
    return jnp.tensordot(verbs.dense(left), verbs.dense(leaf.right), 1, precision=lax.Precision.HIGHEST)


@verbs.sliceable.register
def _(leaf: LowRank) -> bool:
    return leaf.stack > 0 and verbs.sliceable(leaf.left) and verbs.sliceable(leaf.right)


@verbs.map_arrays.register
def _(leaf: LowRank, fn) -> LowRank:
    return dataclasses.replace(leaf, left=verbs.map_arrays(leaf.left, fn), right=verbs.map_arrays(leaf.right, fn))
