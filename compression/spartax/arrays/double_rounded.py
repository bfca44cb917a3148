"""`DoubleRounded`: one copy of int8 codes that is read at 8 bits or fewer."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spartax.arrays import elementwise, verbs
from spartax.arrays.quantized import Quantized, refused, renamed
from spartax.arrays.use import Use
from spartax.kernels.double_rounding import round_again, step_growth
from spartax.records import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class DoubleRounded(verbs.Leaf):
    """`dense = clip(round(codes / 2^D), -2^(b-1), 2^(b-1) - 1) * scale * 2^D` with `D = 8 - b`, b bits in use.

    Any use reads the integers of b bits that it cuts from the codes, in the kernels of `Quantized` where they apply.
    There is no other copy, so `pack` has nothing to drop: a packed leaf can still be read at every width.

    Attributes:
      codes: int8, or a sparse leaf of codes that are mostly zero.
      scale: float32 step of 8 bits; each axis is 1 or that of the codes.
      bits: b, int8, 2 to 8; each axis is 1 or that of the scale. An array: another width retraces nothing.
      kind: name of the dense dtype.
    """

    codes: Any
    scale: Array
    bits: Array
    kind: str = dataclasses.field(default="float32", metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight."""
        return self.codes.shape

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the dense weight."""
        return np.dtype(jnp.dtype(self.kind))

    @property
    def cut(self) -> Quantized:
        """The weight at the width in use: integers of b bits, kept as int8, and their step."""
        codes = round_again(verbs.dense(self.codes), self.bits).astype(jnp.int8)
        return Quantized(codes, self.scale * step_growth(self.bits), None, self.kind)


@verbs.dense.register
def _(leaf: DoubleRounded) -> Array:
    return verbs.dense(leaf.cut)


@verbs.plan.register
def _(leaf: DoubleRounded, use: Use) -> verbs.Plan:
    alike = Quantized(verbs.dense(leaf.codes), leaf.scale, None, leaf.kind)  # looks like the cut from outside
    inner = verbs.plan(alike, use)
    kernel = None if inner.kernel is None else f"DoubleRounded, cut from 8 bits, then {inner.kernel}"
    return verbs.Plan(kernel, f"DoubleRounded: {inner.why}", inner.macs)


@verbs.contract.register
def _(leaf: DoubleRounded, use: Use, x: Array) -> Array:
    return verbs.contract(leaf.cut, use, x)


@verbs.pack.register
def _(leaf: DoubleRounded) -> DoubleRounded:
    return leaf


@verbs.take.register
def _(leaf: DoubleRounded, rows: Array) -> DoubleRounded | None:
    """Rows of the codes, each with its own step and width."""
    if verbs.is_leaf(leaf.codes):
        return None
    return jax.tree.map(lambda x: x[rows // (leaf.shape[0] // x.shape[0])], leaf)


@verbs.sliceable.register
def _(leaf: DoubleRounded) -> bool:
    return verbs.sliceable(leaf.codes) and all(x.shape[0] == leaf.shape[0] for x in (leaf.scale, leaf.bits))


@verbs.transpose.register
def _(leaf: DoubleRounded, axes: tuple[int, ...]) -> DoubleRounded | None:
    return None if verbs.is_leaf(leaf.codes) else elementwise.transpose(leaf, axes)


verbs.astype.register(DoubleRounded)(renamed)
verbs.map_arrays.register(DoubleRounded)(refused)
