"""`BlockDiagonal`: a weight whose inputs and outputs are split into groups that do not meet."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spartax.arrays import convolving, verbs
from spartax.arrays.use import Use
from spartax.records import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class BlockDiagonal(verbs.Leaf):
    """Group g of the inputs `[*spatial, I, O]` reaches group g of the outputs only, by `blocks[..., g * O / groups :]`.

    A Dense layer with it is one small product for each group, a convolution a grouped one.

    Attributes:
      blocks: array or leaf `[*spatial, I / groups, O]`.
      groups: how many blocks there are.
    """

    blocks: Any
    groups: int = dataclasses.field(metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight, `[*spatial, I, O]`."""
        *spatial, inputs, outputs = self.blocks.shape
        return (*spatial, inputs * self.groups, outputs)

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the blocks."""
        return verbs.float_dtype(self.blocks)


@verbs.dense.register
def _(leaf: BlockDiagonal) -> Array:
    blocks = _apart(leaf)
    wide = blocks[..., None, :, :, :] * jnp.eye(leaf.groups, dtype=blocks.dtype)[:, None, :, None]
    return wide.reshape(leaf.shape)


def _apart(leaf: BlockDiagonal) -> Array:
    """The blocks as `[*spatial, I / groups, groups, O / groups]`."""
    blocks = verbs.dense(leaf.blocks)
    return blocks.reshape(*blocks.shape[:-1], leaf.groups, -1)


@verbs.pack.register
def _(leaf: BlockDiagonal) -> BlockDiagonal:
    return dataclasses.replace(leaf, blocks=verbs.pack(leaf.blocks))


@verbs.plan.register
def _(leaf: BlockDiagonal, use: Use) -> verbs.Plan:
    dense_layer = use.op == "dot_general" and leaf.ndim == 2 and not use.left and use.dims[0] == (0,)
    if not dense_layer and not convolving.fits(use, tuple(range(leaf.ndim))):
        return verbs.Plan(None, "BlockDiagonal: neither x @ w nor an ungrouped convolution", use.macs)
    return verbs.Plan("BlockDiagonal: one product a group", f"{leaf.groups} groups", use.macs // leaf.groups)


@verbs.contract.register
def _(leaf: BlockDiagonal, use: Use, x: Array) -> Array:
    if use.op == "conv_general_dilated":
        out = convolving.convolve(use, verbs.dense(leaf.blocks), x, range(leaf.ndim - 2), leaf.groups)
        return convolving.finish(use, out)
    x = jnp.moveaxis(x, use.dims[1][0], -1).reshape(-1, leaf.groups, leaf.blocks.shape[0])
    kind = use.params["preferred_element_type"]
    out = jnp.einsum("ngi,igo->ngo", x, _apart(leaf), precision=use.params["precision"], preferred_element_type=kind)
    return out.reshape(use.out.shape).astype(use.out.dtype)


@verbs.astype.register
def _(leaf: BlockDiagonal, dtype: Any) -> BlockDiagonal | None:
    blocks = verbs.astype(leaf.blocks, dtype) if verbs.is_leaf(leaf.blocks) else leaf.blocks.astype(dtype)
    return None if blocks is None else BlockDiagonal(blocks, leaf.groups)


@verbs.sliceable.register
def _(leaf: BlockDiagonal) -> bool:
    return len(leaf.blocks.shape) > 2 and verbs.sliceable(leaf.blocks)


@verbs.map_arrays.register
def _(leaf: BlockDiagonal, fn) -> BlockDiagonal:
    return BlockDiagonal(verbs.map_arrays(leaf.blocks, fn), leaf.groups)
