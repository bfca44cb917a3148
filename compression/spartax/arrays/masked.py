"""`Masked`: a weight with some entries switched off."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spartax.arrays import packed, verbs
from spartax.arrays.double_rounded import DoubleRounded
from spartax.arrays.fake_quantized import FakeQuantized
from spartax.arrays.quantized import Quantized
from spartax.arrays.smallest import smallest
from spartax.records import Array, Path


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Masked(verbs.Leaf):
    """`dense = where(mask, weight, 0)`; the gradient in `weight` is zero where the mask is.

    Attributes:
      weight: array or leaf of the full shape.
      mask: bool array of the same shape, True = kept, or the same at one bit each (`Packed`).
    """

    weight: Any
    mask: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight."""
        return self.weight.shape

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the weight."""
        return verbs.float_dtype(self.weight)


def check_masks(path: Path, weight: Any) -> None:
    """Every mask inside a weight must have the shape of what it masks; one that would broadcast is refused too."""
    for leaf in jax.tree.leaves(weight, is_leaf=lambda x: isinstance(x, Masked)):
        if isinstance(leaf, Masked):
            if tuple(leaf.mask.shape) != tuple(leaf.weight.shape):
                raise ValueError(
                    f"{path}: a mask must have the shape {tuple(leaf.weight.shape)} of its weight; "
                    f"got {tuple(leaf.mask.shape)}."
                )
            check_masks(path, leaf.weight)


def _inner(leaf: Masked) -> Any:
    """What is masked; in training zero where nothing is kept, so that no scale is made of entries that are gone."""
    if not isinstance(leaf.weight, FakeQuantized):
        return leaf.weight
    return dataclasses.replace(leaf.weight, weight=verbs.dense(Masked(leaf.weight.weight, leaf.mask)))


@verbs.dense.register
def _(leaf: Masked) -> Array:
    weight = verbs.dense(_inner(leaf))
    return jnp.where(verbs.dense(leaf.mask), weight, jnp.zeros((), weight.dtype))


@verbs.pack.register
def _(leaf: Masked) -> verbs.Leaf:
    """The smallest of bitmask, N:M and blocks; codes of a quantised weight under a symmetric grid likewise."""
    weight = verbs.pack(_inner(leaf))
    mask = verbs.dense(leaf.mask)
    if isinstance(weight, DoubleRounded) or (isinstance(weight, Quantized) and weight.keeps_zero):
        return dataclasses.replace(weight, codes=smallest(weight.codes, mask))
    if not verbs.is_leaf(weight):
        return smallest(weight, mask)
    return Masked(weight, packed.pack_codes(mask, 1, 0))


@verbs.transpose.register
def _(leaf: Masked, axes: tuple[int, ...]) -> Masked | None:
    weight, mask = _transposed(leaf.weight, axes), _transposed(leaf.mask, axes)
    return None if weight is None or mask is None else Masked(weight, mask)


@verbs.reshape.register
def _(leaf: Masked, shape: tuple[int, ...]) -> Masked | None:
    if verbs.is_leaf(leaf.weight) or verbs.is_leaf(leaf.mask):
        return None
    return Masked(leaf.weight.reshape(shape), leaf.mask.reshape(shape))


@verbs.astype.register
def _(leaf: Masked, dtype: Any) -> Masked | None:
    weight = verbs.astype(leaf.weight, dtype) if verbs.is_leaf(leaf.weight) else leaf.weight.astype(dtype)
    return None if weight is None else Masked(weight, leaf.mask)


@verbs.take.register
def _(leaf: Masked, rows: Array) -> Masked | None:
    weight, mask = (verbs.take(v, rows) if verbs.is_leaf(v) else v[rows] for v in (leaf.weight, leaf.mask))
    return None if weight is None or mask is None else Masked(weight, mask)


@verbs.sliceable.register
def _(leaf: Masked) -> bool:
    return verbs.sliceable(leaf.weight) and verbs.sliceable(leaf.mask)


@verbs.map_arrays.register
def _(leaf: Masked, fn) -> Masked:
    return Masked(verbs.map_arrays(leaf.weight, fn), leaf.mask)


def _transposed(x: Any, axes: tuple[int, ...]) -> Any:
    return verbs.transpose(x, axes) if verbs.is_leaf(x) else jnp.transpose(x, axes)
