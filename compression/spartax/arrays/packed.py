"""`Packed`: small integers or bools at their true width."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from spartax.arrays import verbs
from spartax.kernels import bits as bits_kernel
from spartax.records import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Packed(verbs.Leaf):
    """Integers of `bits` bits, stored in uint8 along one axis: `dense = low + unpack(data)`.

    Attributes:
      data: uint8, the shape of the codes but for `axis`.
      bits: 1 to 8.
      axis: the packed axis, negative, so that a stack may be sliced off in front.
      length: number of codes along that axis.
      low: smallest code; what is stored is `code - low`.
      kind: dtype of the codes, "int8" or "bool".
    """

    data: Array
    bits: int = dataclasses.field(metadata={"static": True})
    axis: int = dataclasses.field(metadata={"static": True})
    length: int = dataclasses.field(metadata={"static": True})
    low: int = dataclasses.field(default=0, metadata={"static": True})
    kind: str = dataclasses.field(default="int8", metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the codes."""
        shape = list(self.data.shape)
        shape[self.axis] = self.length
        return tuple(shape)

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the codes."""
        return np.dtype(self.kind)


def pack_codes(codes: Array, bits: int, low: int, axis: int | None = None) -> Packed:
    """Store integer `codes` in [low, low + 2**bits) at `bits` bits each.

    Args:
      codes: int8 or bool.
      bits: 1 to 8.
      low: smallest possible code.
      axis: packed axis; when left out, the last of those that waste the fewest bytes on padding.
    """
    if axis is None:
        waste = [bits_kernel.packed_length(n, bits) * 8 / max(n * bits, 1) for n in codes.shape]
        axis = min(range(codes.ndim), key=lambda a: (waste[a], -a))
    axis = axis % codes.ndim - codes.ndim
    kind = "bool" if codes.dtype == jnp.bool_ else "int8"
    shifted = codes if kind == "bool" else codes.astype(jnp.int16) - low
    return Packed(bits_kernel.pack_bits(shifted, bits, axis), bits, axis, codes.shape[axis], low, kind)


@verbs.dense.register
def _(leaf: Packed) -> Array:
    codes = bits_kernel.unpack_bits(leaf.data, leaf.bits, leaf.axis, leaf.length)
    if leaf.kind == "bool":
        return codes.astype(jnp.bool_)
    return (codes.astype(jnp.int16) + leaf.low).astype(jnp.int8)


@verbs.pack.register
def _(leaf: Packed) -> Packed:
    return leaf


@verbs.transpose.register
def _(leaf: Packed, axes: tuple[int, ...]) -> Packed:
    axis = axes.index(leaf.axis % leaf.ndim) - leaf.ndim
    return dataclasses.replace(leaf, data=jnp.transpose(leaf.data, axes), axis=axis)


@verbs.take.register
def _(leaf: Packed, rows: Array) -> Packed | None:
    return None if leaf.axis == -leaf.ndim else dataclasses.replace(leaf, data=leaf.data[rows])


@verbs.sliceable.register
def _(leaf: Packed) -> bool:
    return leaf.axis != -leaf.ndim


@verbs.map_arrays.register
def _(leaf: Packed, fn) -> Packed:
    return leaf
