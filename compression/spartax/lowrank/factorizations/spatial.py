"""Spatial decomposition of convolution kernels: a vertical convolution, then a horizontal one."""

from collections.abc import Mapping

from spartax.arrays import Separable
from spartax.lowrank.convolutions import axes_of, canonical, is_spatial
from spartax.lowrank.matrices import truncated, wide
from spartax.records import Array, Factorization, Layout


def spatial() -> Factorization:
    """`K[h, w, i, o] = sum_p vertical[h, i, p] horizontal[w, p, o]`, the truncated SVD of `K` as `[H I, W O]`.

    Jaderberg et al., arXiv 1405.3866; the scheme "VH" of "Trained Rank Pruning for Efficient Deep Neural Networks"
    (S022). For ungrouped kernels with two spatial axes; others stay dense.
    """
    return Factorization(frozenset(), _unfold, _build)


def _matrix(kernel: Array) -> Array:
    height, width, inputs, outputs = kernel.shape
    return kernel.transpose(0, 2, 1, 3).reshape(height * inputs, width * outputs)


def _unfold(weight: Array, layout: Layout) -> dict[str, Array]:
    return {"": _matrix(canonical(weight, layout))} if is_spatial(weight, layout, 2) else {}


def _build(weight: Array, layout: Layout, ranks: dict[str, int], statistics: Mapping[str, Array]) -> Separable:
    del statistics
    kernel = wide(canonical(weight, layout))
    height, width, inputs, outputs = kernel.shape
    left, right = truncated(_matrix(kernel), ranks[""])
    vertical = left.reshape(height, inputs, -1)
    horizontal = right.reshape(-1, width, outputs).swapaxes(0, 1)
    return Separable(vertical.astype(weight.dtype), horizontal.astype(weight.dtype), axes_of(layout))
