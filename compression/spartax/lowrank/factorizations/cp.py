"""CP decomposition of convolution kernels by alternating least squares. Experimental: it does not always converge."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import lax

from spartax import checks
from spartax.arrays import Depthwise, Tucker
from spartax.lowrank.convolutions import axes_of, canonical, is_spatial, unfolding
from spartax.lowrank.matrices import wide
from spartax.records import Array, Factorization, Layout

Factors = tuple[Array, ...]  # four: [H, r], [W, r], [I, r], [O, r]


def cp(iterations: int = 100, ridge: float = 1e-4) -> Factorization:
    """`K[h, w, i, o] = sum_p a[h, p] b[w, p] c[i, p] d[o, p]`: 1 x 1, depthwise h x 1, depthwise 1 x w, 1 x 1.

    Alternating least squares from the leading singular vectors of the unfoldings; a ridge and columns of one norm keep
    the factors from growing against each other, which is how CP fails (Lebedev et al., arXiv 1412.6553). Look at
    `relative_error` in `info`, and at its `warning` that the rounds have not settled, and fine-tune. For ungrouped
    kernels with two spatial axes; others stay dense. The rank is that of the matrix `[H W I, O]`, at most its smaller
    side.

    Args:
      iterations: rounds over the four factors.
      ridge: share of the mean diagonal that is added to every system of equations.

    Raises:
      ValueError: `iterations` below one, or a negative ridge.
    """
    checks.positive_int("iterations", iterations)
    checks.in_range("ridge", ridge, 0.0, 1.0)

    def unfold(weight: Array, layout: Layout) -> dict[str, Array]:
        if not is_spatial(weight, layout, 2):
            return {}
        kernel = canonical(weight, layout)
        return {"": kernel.reshape(-1, kernel.shape[-1])}

    def build(weight: Array, layout: Layout, ranks: dict[str, int], statistics: Mapping[str, Array]) -> Tucker:
        del statistics
        kernel = wide(canonical(weight, layout))
        start = tuple(_start(unfolding(kernel, axis), ranks[""]) for axis in range(4))
        parts = lax.fori_loop(0, iterations, lambda _, parts: _round(kernel, parts, ridge), start)
        vertical, horizontal, first, last = (part.astype(weight.dtype) for part in parts)
        return Tucker(first, Depthwise(vertical, horizontal), last.T, axes_of(layout))

    def moving(weight: Array, layout: Layout, leaf: Tucker) -> Array:
        kernel = wide(canonical(weight, layout))
        parts = tuple(wide(part) for part in (leaf.core.vertical, leaf.core.horizontal, leaf.first, leaf.last.T))
        moved = _product(_round(kernel, parts, ridge)) - _product(parts)
        return jnp.linalg.norm(moved) / jnp.linalg.norm(kernel)

    return Factorization(frozenset(), unfold, build, moving=moving)


def _start(matrix: Array, rank: int) -> Array:
    """Leading left singular vectors; beyond their number, shifted sums of them, so that no two columns are equal."""
    u = jnp.linalg.svd(matrix, full_matrices=False)[0]
    column = jnp.arange(rank)
    turn = column // u.shape[1]
    return u[:, column % u.shape[1]] + turn * u[:, (column + turn) % u.shape[1]]


def _round(kernel: Array, parts: Factors, ridge: float) -> Factors:
    for axis in range(4):
        parts = _solve(kernel, parts, axis, ridge)
    return parts


def _solve(kernel: Array, parts: Factors, axis: int, ridge: float) -> Factors:
    """The least-squares factor of one axis given the others, whose columns are brought to norm one first."""
    others = [p / jnp.maximum(jnp.linalg.norm(p, axis=0), 1e-20) for i, p in enumerate(parts) if i != axis]
    gram = jnp.prod(jnp.stack([_dot(p.T, p) for p in others]), axis=0)
    gram += ridge * jnp.mean(jnp.diag(gram)) * jnp.eye(len(gram))
    product = _khatri_rao(others)
    own = jax.scipy.linalg.solve(gram, _dot(unfolding(kernel, axis), product).T, assume_a="pos").T
    others.insert(axis, own)
    return tuple(others)


def _product(parts: Factors) -> Array:
    """The kernel that the factors make, `[H W I, O]`."""
    return _dot(_khatri_rao(list(parts[:3])), parts[3].T)


def _khatri_rao(parts: list[Array]) -> Array:
    """`[n1 n2 n3, r]`, the products of entries column by column."""
    one, two, three = parts
    return jnp.einsum("ar,br,cr->abcr", one, two, three).reshape(-1, one.shape[1])


def _dot(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)
