"""`Quantized`: integer codes and scales."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spartax.arrays import quantized_rows, verbs
from spartax.arrays.use import Use
from spartax.kernels import levels as number_formats
from spartax.records import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Quantized(verbs.Leaf):
    """`dense = (value(codes) - zero) * scale`, each scale covering a block of codes.

    `scale` has as many axes as the codes, and along each axis a length that divides theirs: all ones is per tensor,
    ones but for the output axis is per channel, `I / group` along the input axis is per group.

    Attributes:
      codes: int8 array, or `Packed` at the true width, or either `Permuted` to have the outputs first, or `Bitmask` of
        codes that are mostly zero.
      scale: float, or uint8 shared exponents (`2 ** (scale - 127)`).
      zero: zero point in code units, int8 or float, same shape as `scale`; None for a symmetric grid.
      kind: name of the dense dtype.
      levels: number format of the codes: "integer" (a code is its value) or another of `kernels.levels`.
    """

    codes: Any
    scale: Array
    zero: Array | None = None
    kind: str = dataclasses.field(default="float32", metadata={"static": True})
    levels: str = dataclasses.field(default="integer", metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight."""
        return self.codes.shape

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the dense weight."""
        return np.dtype(jnp.dtype(self.kind))

    @property
    def keeps_zero(self) -> bool:
        """Whether code 0 is the number zero everywhere."""
        return self.zero is None and self.levels not in number_formats.WITHOUT_CODE_ZERO


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
    scale = number_formats.scale_values(leaf.scale)
    wide = jnp.promote_types(scale.dtype, jnp.float32)  # a product in bfloat16 would lose a quarter of a step
    values = number_formats.decode(verbs.dense(leaf.codes), leaf.levels).astype(wide)
    if leaf.zero is not None:
        values = values - spread(leaf.zero, values.shape).astype(wide)
    return (values * spread(scale, values.shape).astype(wide)).astype(leaf.kind)


@verbs.plan.register
def _(leaf: Quantized, use: Use) -> verbs.Plan:
    found = quantized_rows.read(leaf, use)
    if isinstance(found, str):
        return verbs.Plan(None, f"Quantized: {found}: stored small, computed dense", use.macs)
    path, why = quantized_rows.choose(leaf, found, use)
    if path is None:
        return verbs.Plan(None, f"Quantized: stored small, computed dense: {why}", use.macs)
    what = f"{found.form.bits}-bit" if leaf.levels == "integer" else leaf.levels
    return verbs.Plan(f"Quantized: {what} x float product [{path}]", why, use.macs)


@verbs.contract.register
def _(leaf: Quantized, use: Use, x: Array) -> Array:
    found = quantized_rows.read(leaf, use)
    if isinstance(found, str):
        return use.apply(verbs.dense(leaf), x)
    return quantized_rows.multiply(leaf, found, use, x)


@verbs.pack.register
def _(leaf: Quantized) -> Quantized:
    return dataclasses.replace(leaf, codes=verbs.pack(leaf.codes))


@verbs.transpose.register
def _(leaf: Quantized, axes: tuple[int, ...]) -> Quantized | None:
    codes = verbs.transpose(leaf.codes, axes) if verbs.is_leaf(leaf.codes) else jnp.transpose(leaf.codes, axes)
    if codes is None:
        return None
    zero = None if leaf.zero is None else jnp.transpose(leaf.zero, axes)
    return dataclasses.replace(leaf, codes=codes, scale=jnp.transpose(leaf.scale, axes), zero=zero)


@verbs.astype.register(Quantized)
def renamed(leaf: Any, dtype: Any) -> Any:
    """The same codes; the dense dtype is a name."""
    return dataclasses.replace(leaf, kind=np.dtype(jnp.dtype(dtype)).name)


@verbs.take.register
def _(leaf: Quantized, rows: Array) -> Quantized | None:
    """Rows of the codes, each with its own row of scales."""
    codes = verbs.take(leaf.codes, rows) if verbs.is_leaf(leaf.codes) else leaf.codes[rows]
    if codes is None:
        return None
    at = rows // (leaf.shape[0] // leaf.scale.shape[0])
    zero = None if leaf.zero is None else leaf.zero[at]
    return dataclasses.replace(leaf, codes=codes, scale=leaf.scale[at], zero=zero)


@verbs.sliceable.register
def _(leaf: Quantized) -> bool:
    return leaf.scale.shape[0] == leaf.shape[0] and verbs.sliceable(leaf.codes)


@verbs.map_arrays.register(Quantized)
def refused(leaf: Any, fn: Any) -> Any:
    """Codes are no numbers for another method to work on."""
    raise ValueError("this weight is quantized already; quantize once, or restore the dense weight first.")
