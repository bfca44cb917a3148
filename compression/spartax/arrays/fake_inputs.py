"""`FakeInputs`: a weight in training whose every activation is rounded before they meet."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spartax.arrays import around, verbs
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
        features = math.prod(x.shape[a] for a in use.params["dimension_numbers"].lhs_spec[1:])
    spread = jax.tree.map(lambda v: around.over_batch(v, use, x.ndim), leaf.quantizer)
    return spread(x, features).astype(x.dtype)


@verbs.plan.register
def _(leaf: FakeInputs, use: Use) -> verbs.Plan:
    inner = around.inner_plan(leaf, use)
    return verbs.Plan(f"FakeInputs, then {inner.kernel or 'the dense weight'}", inner.why, inner.macs)


@verbs.contract.register
def _(leaf: FakeInputs, use: Use, x: Array) -> Array:
    return verbs.product(leaf.weight, use, rounded(leaf, use, x))


@verbs.sliceable.register
def _(leaf: FakeInputs) -> bool:
    return leaf.stack > 0 and verbs.sliceable(leaf.weight)


around.register(FakeInputs)
