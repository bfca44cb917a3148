"""Tucker-2 decomposition of convolution kernels: few input directions, few output directions."""

from collections.abc import Mapping

import jax.numpy as jnp
from jax import lax

from spartax import checks
from spartax.arrays import Tucker
from spartax.lowrank.convolutions import axes_of, canonical, is_spatial, unfolding
from spartax.lowrank.matrices import wide
from spartax.records import Array, Factorization, Layout


def tucker(iterations: int = 5) -> Factorization:
    """`K[.., i, o] = sum_pq U[i, p] C[.., p, q] V[o, q]` by higher-order orthogonal iteration.

    `U` is the leading left singular vectors of `K x_O V^T` unfolded along the inputs, `V` those of `K x_I U^T` along
    the outputs, in turns; `C = K x_I U^T x_O V^T`. The two ranks come from the rank rule, asked about both unfoldings
    (`path#inputs`, `path#outputs`): `lowrank.vbmf()` as in Kim et al., arXiv 1511.06530, `lowrank.energy()` or
    `lowrank.fixed()`. The groups of a grouped convolution `[.., I / groups, O]` share `U` and `C`. Kernels without a
    spatial extent stay dense: for 1 x 1 kernels use `lowrank.svd()`.

    Args:
      iterations: rounds after the truncated higher-order SVD.

    Raises:
      ValueError: `iterations` is negative.
    """
    checks.positive_int("iterations", iterations, least=0)

    def unfold(weight: Array, layout: Layout) -> dict[str, Array]:
        if not is_spatial(weight, layout, grouped=True):
            return {}
        kernel = canonical(weight, layout)
        return {"inputs": unfolding(kernel, -2), "outputs": unfolding(kernel, -1)}

    def build(weight: Array, layout: Layout, ranks: dict[str, int], statistics: Mapping[str, Array]) -> Tucker:
        del statistics
        kernel = wide(canonical(weight, layout))
        last = leading(unfolding(kernel, -1), ranks["outputs"])
        first = leading(unfolding(onto(kernel, last, -1), -2), ranks["inputs"])
        for _ in range(iterations):
            last = leading(unfolding(onto(kernel, first, -2), -1), ranks["outputs"])
            first = leading(unfolding(onto(kernel, last, -1), -2), ranks["inputs"])
        core = onto(onto(kernel, first, -2), last, -1)
        first, core, last = (part.astype(weight.dtype) for part in (first, core, last.T))
        return Tucker(first, core, last, axes_of(layout))

    return Factorization(frozenset(), unfold, build)


def leading(matrix: Array, rank: int) -> Array:
    """The first left singular vectors, `[m, rank]`."""
    return jnp.linalg.svd(matrix, full_matrices=False)[0][:, :rank]


def onto(kernel: Array, basis: Array, axis: int) -> Array:
    """The kernel with one axis expressed in a basis `[n, r]`."""
    out = jnp.tensordot(kernel, basis, ((axis,), (0,)), precision=lax.Precision.HIGHEST)
    return jnp.moveaxis(out, -1, axis)
