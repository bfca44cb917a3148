"""`FakeInputs`: a weight in training whose every activation is rounded before they meet."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spartax.arrays import verbs
from spartax.arrays.use import Use
from spartax.records import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class FakeInputs(verbs.Leaf):
    """`dense = dense(weight)`; a contraction with activation x is that of the weight with `quantizer(x)`.

    Where the program makes the weight dense (`explain` says where), activations stay as they are. Networks run under
    `compressed`, as with any leaf.

    Attributes:
      weight: array or leaf.
      quantizer: its arrays are `[*stack]`, `[]` without a stack of layers.
    """

    weight: Any
    quantizer: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight."""
        return tuple(self.weight.shape)

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the weight."""
        return verbs.float_dtype(self.weight)

    @property
    def stack(self) -> int:
        """Leading axes that index layers."""
        return max((x.ndim for x in jax.tree.leaves(self.quantizer)), default=0)


def rounded(leaf: FakeInputs, use: Use, x: Array) -> Array:
    """The activation as this weight meets it; a gradient is scaled by the features of one example."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return x
    if use.op == "dot_general":
        features = math.prod(x.shape[a] for a in use.dims[1])
    else:
        features = x.size // x.shape[use.params["dimension_numbers"].lhs_spec[0]]
    spread = jax.tree.map(lambda v: _over_batch(v, use, x.ndim), leaf.quantizer)
    return spread(x, features).astype(x.dtype)


def _over_batch(value: Array, use: Use, ndim: int) -> Array:
    """Values `[*stack]` along the axes of the activation that meet the stack."""
    if not value.ndim:
        return value
    met = dict(zip(use.dims[2], use.dims[3]))  # axis of the weight -> axis of x
    order = sorted(range(value.ndim), key=lambda a: met[a])
    shape = [1] * ndim
    for axis in range(value.ndim):
        shape[met[axis]] = value.shape[axis]
    return jnp.transpose(value, order).reshape(shape)


@verbs.dense.register
def _(leaf: FakeInputs) -> Array:
    return verbs.dense(leaf.weight) if verbs.is_leaf(leaf.weight) else leaf.weight


@verbs.plan.register
def _(leaf: FakeInputs, use: Use) -> verbs.Plan:
    inner = verbs.plan(leaf.weight, use)
    return verbs.Plan(f"FakeInputs, then {inner.kernel or 'the dense weight'}", inner.why, inner.macs)


@verbs.contract.register
def _(leaf: FakeInputs, use: Use, x: Array) -> Array:
    x = rounded(leaf, use, x)
    if verbs.is_leaf(leaf.weight) and verbs.plan(leaf.weight, use).kernel:
        return verbs.contract(leaf.weight, use, x)
    return use.apply(verbs.dense(leaf), x)


@verbs.pack.register
def _(leaf: FakeInputs) -> FakeInputs:
    """The weight gets small; activations are rounded as in training."""
    return dataclasses.replace(leaf, weight=verbs.pack(leaf.weight) if verbs.is_leaf(leaf.weight) else leaf.weight)


@verbs.transpose.register
def _(leaf: FakeInputs, axes: tuple[int, ...]) -> FakeInputs | None:
    if axes[: leaf.stack] != tuple(range(leaf.stack)):
        return None
    moved = verbs.transpose(leaf.weight, axes) if verbs.is_leaf(leaf.weight) else None
    return dataclasses.replace(leaf, weight=jnp.transpose(verbs.dense(leaf), axes) if moved is None else moved)


@verbs.reshape.register
def _(leaf: FakeInputs, shape: tuple[int, ...]) -> FakeInputs | None:
    if shape[: leaf.stack] != leaf.shape[: leaf.stack]:
        return None
    moved = verbs.reshape(leaf.weight, shape) if verbs.is_leaf(leaf.weight) else None
    return dataclasses.replace(leaf, weight=verbs.dense(leaf).reshape(shape) if moved is None else moved)


@verbs.astype.register
def _(leaf: FakeInputs, dtype: Any) -> FakeInputs:
    cast = verbs.astype(leaf.weight, dtype) if verbs.is_leaf(leaf.weight) else None
    return dataclasses.replace(leaf, weight=verbs.dense(leaf).astype(dtype) if cast is None else cast)


@verbs.take.register
def _(leaf: FakeInputs, rows: Array) -> Any:
    """Rows that are looked up meet no activation."""
    return verbs.take(leaf.weight, rows) if verbs.is_leaf(leaf.weight) else leaf.weight[rows]


@verbs.sliceable.register
def _(leaf: FakeInputs) -> bool:
    return leaf.stack > 0 and verbs.sliceable(leaf.weight)


@verbs.map_arrays.register
def _(leaf: FakeInputs, fn) -> FakeInputs:
    return dataclasses.replace(leaf, weight=verbs.map_arrays(leaf.weight, fn))
