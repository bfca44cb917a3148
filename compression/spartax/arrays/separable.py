"""`Separable` and `Depthwise`: two-dimensional convolution kernels made of one-dimensional ones."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from spartax.arrays import convolving, verbs
from spartax.arrays.use import Use
from spartax.records import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Separable(verbs.Leaf):
    """`dense[h, w, i, o] = sum over p of vertical[h, i, p] horizontal[w, p, o]`: an h x 1, then a 1 x w convolution.

    Attributes:
      vertical: array or leaf `[H, I, r]`.
      horizontal: array or leaf `[W, r, O]`.
      axes: where the axes `[H, W, I, O]` are stored in the weight.
    """

    vertical: Any
    horizontal: Any
    axes: tuple[int, ...] = dataclasses.field(default=(0, 1, 2, 3), metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the kernel."""
        (height, inputs, _), (width, _, outputs) = self.vertical.shape, self.horizontal.shape
        return convolving.stored((height, width, inputs, outputs), self.axes)

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the product."""
        return np.result_type(verbs.float_dtype(self.vertical), verbs.float_dtype(self.horizontal))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Depthwise(verbs.Leaf):
    """`dense[h, w, p, p] = vertical[h, p] horizontal[w, p]`, zero off the diagonal: the core of a CP decomposition.

    Attributes:
      vertical: array or leaf `[H, r]`.
      horizontal: array or leaf `[W, r]`.
    """

    vertical: Any
    horizontal: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the kernel, `[H, W, r, r]`."""
        (height, rank), (width, _) = self.vertical.shape, self.horizontal.shape
        return height, width, rank, rank

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the product."""
        return np.result_type(verbs.float_dtype(self.vertical), verbs.float_dtype(self.horizontal))


@verbs.dense.register
def _(leaf: Separable) -> Array:
    parts = verbs.dense(leaf.vertical), verbs.dense(leaf.horizontal)
    product = jnp.einsum("hip,wpo->hwio", *parts, precision=lax.Precision.HIGHEST)
    return jnp.transpose(product, convolving.order(leaf.axes))


@verbs.dense.register
def _(leaf: Depthwise) -> Array:
    vertical, horizontal = verbs.dense(leaf.vertical), verbs.dense(leaf.horizontal)
    each = vertical[:, None] * horizontal[None]
    return each[..., None] * jnp.eye(each.shape[-1], dtype=each.dtype)


@verbs.pack.register
def _(leaf: Separable | Depthwise) -> Separable | Depthwise:
    packed = {"vertical": verbs.pack(leaf.vertical), "horizontal": verbs.pack(leaf.horizontal)}
    return dataclasses.replace(leaf, **packed)


@verbs.plan.register
def _(leaf: Separable, use: Use) -> verbs.Plan:
    if not convolving.fits(use, leaf.axes):
        return verbs.Plan(None, "Separable: not an ungrouped convolution over these axes", use.macs)
    numbers, (_, written) = use.params["dimension_numbers"], convolving.positions(use)
    between = written // use.out.shape[numbers.out_spec[3]] * use.x.shape[numbers.lhs_spec[3]]  # rows out, columns in
    thin = use.trips * (between * math.prod(leaf.vertical.shape) + written * math.prod(leaf.horizontal.shape))
    if thin > use.macs:
        return verbs.Plan(None, "Separable: this rank costs more than the dense kernel here", use.macs)
    return verbs.Plan("Separable: vertical, then horizontal convolution", f"rank {leaf.vertical.shape[-1]}", thin)


@verbs.contract.register
def _(leaf: Separable, use: Use, x: Array) -> Array:
    x = convolving.convolve(use, verbs.dense(leaf.vertical)[:, None], x, (0,))
    return convolving.finish(use, convolving.convolve(use, verbs.dense(leaf.horizontal)[None], x, (1,)))


@verbs.plan.register
def _(leaf: Depthwise, use: Use) -> verbs.Plan:
    if not convolving.fits(use, (0, 1, 2, 3)):
        return verbs.Plan(None, "Depthwise: not an ungrouped convolution over these axes", use.macs)
    macs = use.macs // (leaf.shape[2] * leaf.shape[0] * leaf.shape[1]) * (leaf.shape[0] + leaf.shape[1])
    return verbs.Plan("Depthwise: vertical, then horizontal", "one kernel for each channel", macs)


@verbs.contract.register
def _(leaf: Depthwise, use: Use, x: Array) -> Array:
    rank = leaf.shape[-1]
    x = convolving.convolve(use, verbs.dense(leaf.vertical)[:, None, None], x, (0,), groups=rank)
    return convolving.finish(
        use, convolving.convolve(use, verbs.dense(leaf.horizontal)[None, :, None], x, (1,), groups=rank)
    )


@verbs.transpose.register
def _(leaf: Separable, axes: tuple[int, ...]) -> Separable:
    return dataclasses.replace(leaf, axes=convolving.moved(leaf.axes, axes))


@verbs.astype.register
def _(leaf: Separable | Depthwise, dtype: Any) -> Separable | Depthwise | None:
    parts = [verbs.astype(x, dtype) if verbs.is_leaf(x) else x.astype(dtype) for x in (leaf.vertical, leaf.horizontal)]
    return None if any(x is None for x in parts) else dataclasses.replace(leaf, vertical=parts[0], horizontal=parts[1])


@verbs.sliceable.register
def _(leaf: Separable | Depthwise) -> bool:
    return False


@verbs.map_arrays.register
def _(leaf: Separable | Depthwise, fn) -> Separable | Depthwise:
    vertical, horizontal = verbs.map_arrays(leaf.vertical, fn), verbs.map_arrays(leaf.horizontal, fn)
    return dataclasses.replace(leaf, vertical=vertical, horizontal=horizontal)
