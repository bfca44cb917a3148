"""`Bitmask`: the kept values of a sparse weight and one bit for every entry."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spartax import checks
from spartax.arrays import packed, verbs
from spartax.arrays.permuted import Permuted
from spartax.records import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Bitmask(verbs.Leaf):
    """A sparse array without its zeros: `dense[mask] = values` in row-major order, zero elsewhere.

    Takes `n / 8` bytes for the mask and one value for each kept entry; unpacking is a running count and a gather.

    Attributes:
      values: `[k]`, the kept entries in row-major order; an array or `Packed` codes.
      mask: `Packed` bits of the full shape.
    """

    values: Any
    mask: packed.Packed

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the full array."""
        return self.mask.shape

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the values."""
        return verbs.float_dtype(self.values)


def compact(x: Any, mask: Array) -> Bitmask:
    """The entries of `x` (an array, or `Packed` codes whose zero means zero) where `mask` is True.

    The number of kept entries becomes a shape, so this needs concrete values and cannot run under `jit`.
    """
    if not checks.is_concrete(mask):
        raise ValueError("pack: the number of kept weights is only known outside jit; call pack on concrete params.")
    # on the host: on a device every number of kept entries would be compiled on its own
    kept = jnp.asarray(np.asarray(verbs.dense(x))[np.asarray(mask)])
    x = x.value if isinstance(x, Permuted) else x
    if isinstance(x, packed.Packed):
        kept = packed.pack_codes(kept, x.bits, x.low, axis=0)
    return Bitmask(kept, packed.pack_codes(mask, 1, 0))


@verbs.dense.register
def _(leaf: Bitmask) -> Array:
    mask, values = verbs.dense(leaf.mask), verbs.dense(leaf.values)
    if values.shape[0] == 0:
        return jnp.zeros(leaf.shape, leaf.dtype)
    place = jnp.maximum(jnp.cumsum(mask.reshape(-1)) - 1, 0).reshape(mask.shape)
    return jnp.where(mask, values[place], jnp.zeros((), values.dtype))


@verbs.pack.register
def _(leaf: Bitmask) -> Bitmask:
    return leaf


@verbs.astype.register
def _(leaf: Bitmask, dtype: Any) -> Bitmask | None:
    return None if verbs.is_leaf(leaf.values) else Bitmask(leaf.values.astype(dtype), leaf.mask)


@verbs.map_arrays.register
def _(leaf: Bitmask, fn) -> Bitmask:
    raise ValueError("a packed Bitmask cannot be compressed further; apply the method before pack.")
