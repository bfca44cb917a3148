"""`Pulled`: a weight in training that a quadratic term of the loss pulls to a point."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spartax.arrays import elementwise, verbs
from spartax.records import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Pulled(verbs.Leaf):
    """`dense = weight`; the loss adds `|weight - point|^2`, such as `train.radmm`.

    Attributes:
      weight: float32 array.
      bits: the point as int32 of the same shape, bit by bit, so that no optimizer takes it for something to train.
    """

    weight: Array
    bits: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight."""
        return self.weight.shape

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the weight."""
        return verbs.float_dtype(self.weight)

    @property
    def point(self) -> Array:
        """Where the weight is pulled to, float32."""
        return jax.lax.bitcast_convert_type(self.bits, jnp.float32)


def pulled(weight: Array, point: Array) -> Pulled:
    """The leaf with this point."""
    return Pulled(weight, jax.lax.bitcast_convert_type(point.astype(jnp.float32), jnp.int32))


@verbs.dense.register
def _(leaf: Pulled) -> Array:
    return leaf.weight


@verbs.pack.register
def _(leaf: Pulled) -> Array:
    """The point is needed in training alone."""
    return leaf.weight


@verbs.astype.register
def _(leaf: Pulled, dtype: Any) -> Pulled:
    return dataclasses.replace(leaf, weight=leaf.weight.astype(dtype))


@verbs.map_arrays.register
def _(leaf: Pulled, fn: Any) -> Any:
    """Another method works on the weight, which is pulled no more."""
    return fn(leaf.weight)


elementwise.register(Pulled)
