"""`Quantized`: integer codes and scales."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spartax.arrays import verbs
from spartax.records import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Quantized(verbs.Leaf):
    """`dense = (codes - zero) * scale`, each scale covering a block of codes.

    `scale` has as many axes as the codes, and along each axis a length that divides theirs: all ones is per tensor,
    ones but for the output axis is per channel, `I / group` along the input axis is per group.

    Attributes:
      codes: int8 array, or `Packed` at the true width, or either `Permuted` to have the outputs first, or `Bitmask` of
        codes that are mostly zero.
      scale: float.
      zero: zero point in code units, same shape as `scale`; None for a symmetric grid (zero maps to code 0).
      kind: name of the dense dtype.
    """

    codes: Any
    scale: Array
    zero: Array | None = None
    kind: str = dataclasses.field(default="float32", metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight."""
        return self.codes.shape

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the dense weight."""
        return np.dtype(jnp.dtype(self.kind))


def blocks(shape: tuple[int, ...], scale_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape with every axis split into (number of scales, codes per scale)."""
    return tuple(n for full, few in zip(shape, scale_shape) for n in (few, full // few))


def spread(scale: Array, shape: tuple[int, ...]) -> Array:
    """Repeat block values over their blocks: `scale` with lengths dividing `shape` -> an array of `shape`."""
    split = blocks(shape, scale.shape)
    wide = scale.reshape(tuple(n for few in scale.shape for n in (few, 1)))
    return jnp.broadcast_to(wide, split).reshape(shape)


@verbs.dense.register
def _(leaf: Quantized) -> Array:
    wide = jnp.promote_types(leaf.scale.dtype, jnp.float32)  # a product in bfloat16 would lose a quarter of a step
    codes = verbs.dense(leaf.codes).astype(wide)
    if leaf.zero is not None:
        codes = codes - spread(leaf.zero, codes.shape).astype(wide)
    return (codes * spread(leaf.scale, codes.shape).astype(wide)).astype(leaf.kind)


@verbs.pack.register
def _(leaf: Quantized) -> Quantized:
    return dataclasses.replace(leaf, codes=verbs.pack(leaf.codes))


@verbs.transpose.register
def _(leaf: Quantized, axes: tuple[int, ...]) -> Quantized | None:
    codes = verbs.transpose(leaf.codes, axes) if verbs.is_leaf(leaf.codes) else jnp.transpose(leaf.codes, axes)
    if codes is None:
        return None
    zero = None if leaf.zero is None else jnp.transpose(leaf.zero, axes)
    return Quantized(codes, jnp.transpose(leaf.scale, axes), zero, leaf.kind)


@verbs.astype.register
def _(leaf: Quantized, dtype: Any) -> Quantized:
    return dataclasses.replace(leaf, kind=np.dtype(jnp.dtype(dtype)).name)


@verbs.take.register
def _(leaf: Quantized, rows: Array) -> Quantized | None:
    """Rows of the codes, each with its own row of scales."""
    codes = verbs.take(leaf.codes, rows) if verbs.is_leaf(leaf.codes) else leaf.codes[rows]
    if codes is None:
        return None
    at = rows // (leaf.shape[0] // leaf.scale.shape[0])
    return Quantized(codes, leaf.scale[at], None if leaf.zero is None else leaf.zero[at], leaf.kind)


@verbs.sliceable.register
def _(leaf: Quantized) -> bool:
    return leaf.scale.shape[0] == leaf.shape[0] and verbs.sliceable(leaf.codes)


@verbs.map_arrays.register
def _(leaf: Quantized, fn) -> Quantized:
    raise ValueError("this weight is quantised already; quantise once, or restore the dense weight first.")
