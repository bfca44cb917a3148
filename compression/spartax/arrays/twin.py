"""`Twin`: a weight in training that is the product of two, entry by entry."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spartax.arrays import elementwise, verbs
from spartax.records import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Twin(verbs.Leaf):
    """`dense = weight * twin`; both are trained, and each is the gradient of the other.

    Attributes:
      weight: floating array.
      twin: floating array of the same shape.
    """

    weight: Array
    twin: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of both."""
        return self.weight.shape

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the product."""
        return np.dtype(jnp.result_type(self.weight, self.twin))


@verbs.dense.register
def _(leaf: Twin) -> Array:
    return leaf.weight * leaf.twin


@verbs.pack.register
def _(leaf: Twin) -> Array:
    """The product alone."""
    return verbs.dense(leaf)


@verbs.astype.register
def _(leaf: Twin, dtype: Any) -> Twin:
    return jax.tree.map(lambda x: x.astype(dtype), leaf)


@verbs.map_arrays.register
def _(leaf: Twin, fn: Any) -> Any:
    """Another method works on the product."""
    return fn(verbs.dense(leaf))


elementwise.register(Twin)
