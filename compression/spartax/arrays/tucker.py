"""`Tucker`: a convolution kernel with few input and few output directions."""

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
class Tucker(verbs.Leaf):
    """`dense[..., i, o] = sum over p, q of first[i, p] core[..., p, q] last[q, o]`: a Tucker-2 decomposition.

    A convolution with it is a 1 x 1 convolution to r1 channels, a small one with the original stride, padding and
    dilation, and a 1 x 1 convolution to the outputs. The groups of a grouped convolution share the first two, and each
    has its own columns of the last.

    Attributes:
      first: array or leaf `[I, r1]`, of a grouped convolution `[I / groups, r1]`.
      core: array or leaf `[*spatial, r1, r2]`.
      last: array or leaf `[r2, O]`.
      axes: where the axes `[*spatial, I, O]` are stored in the weight: `(0, 1, 2, 3)` for `[H, W, I, O]`.
    """

    first: Any
    core: Any
    last: Any
    axes: tuple[int, ...] = dataclasses.field(default=(0, 1, 2, 3), metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the kernel."""
        return convolving.stored((*self.core.shape[:-2], self.first.shape[0], self.last.shape[-1]), self.axes)

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the product."""
        return np.result_type(*(verbs.float_dtype(x) for x in (self.first, self.core, self.last)))


@verbs.dense.register
def _(leaf: Tucker) -> Array:
    first, core, last = (verbs.dense(x) for x in (leaf.first, leaf.core, leaf.last))
    product = jnp.einsum("ip,...pq,qo->...io", first, core, last, precision=lax.Precision.HIGHEST)
    return jnp.transpose(product, convolving.order(leaf.axes))


@verbs.pack.register
def _(leaf: Tucker) -> Tucker:
    return dataclasses.replace(leaf, **{name: verbs.pack(getattr(leaf, name)) for name in ("first", "core", "last")})


@verbs.plan.register
def _(leaf: Tucker, use: Use) -> verbs.Plan:
    if not convolving.fits(use, leaf.axes, grouped=True):
        return verbs.Plan(None, "Tucker: not a convolution over these axes", use.macs)
    read, written = convolving.positions(use)
    shared = read * math.prod(leaf.first.shape) + _core_macs(leaf.core, written)
    thin = use.trips * (use.layout.groups * shared + written * math.prod(leaf.last.shape))
    if thin > use.macs:
        return verbs.Plan(None, "Tucker: these ranks cost more than the dense kernel here", use.macs)
    ranks = f"ranks {leaf.first.shape[1]} and {leaf.last.shape[0]}"
    return verbs.Plan("Tucker: 1x1, small convolution, 1x1", ranks, thin)


def _core_macs(core: Any, written: int) -> int:
    return written * sum(math.prod(x.shape) for x in jax.tree.leaves(core))


@verbs.contract.register
def _(leaf: Tucker, use: Use, x: Array) -> Array:
    groups = use.layout.groups
    x = convolving.pointwise(use, verbs.dense(leaf.first), convolving.apart(use, x, groups))
    x = convolving.convolve(use, leaf.core, x, range(len(leaf.axes) - 2))
    return convolving.finish(use, convolving.together(use, verbs.dense(leaf.last), x, groups))


@verbs.transpose.register
def _(leaf: Tucker, axes: tuple[int, ...]) -> Tucker:
    return dataclasses.replace(leaf, axes=convolving.moved(leaf.axes, axes))


@verbs.astype.register
def _(leaf: Tucker, dtype: Any) -> Tucker | None:
    cast = lambda x: verbs.astype(x, dtype) if verbs.is_leaf(x) else x.astype(dtype)  # noqa: E731
    first, core, last = cast(leaf.first), cast(leaf.core), cast(leaf.last)
    return None if first is None or core is None or last is None else Tucker(first, core, last, leaf.axes)


@verbs.sliceable.register
def _(leaf: Tucker) -> bool:
    return False


@verbs.map_arrays.register
def _(leaf: Tucker, fn) -> Tucker:
    first, core, last = (verbs.map_arrays(x, fn) for x in (leaf.first, leaf.core, leaf.last))
    return Tucker(first, core, last, leaf.axes)
