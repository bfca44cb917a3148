"""Weights as matrices: which axes are rows, which are columns, and the way back to a leaf."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from spartax.arrays import LowRank
from spartax.records import Array, Factorization, Layout

# (matrix [I, O], rank, statistics of the weight by need) -> (left [I, r], right [r, O]); runs under jit and vmap
Splitting = Callable[[Array, int, Mapping[str, Array]], tuple[Array, Array]]


class Axes(NamedTuple):
    """The axes of a weight `[*stack, *rows, *columns]`, by their lengths; `turned` where the rows are the outputs."""

    stack: tuple[int, ...]
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    turned: bool


def split_axes(shape: tuple[int, ...], layout: Layout) -> Axes | None:
    """Which axes are rows and which are columns, or None when the weight is no matrix in memory.

    After the stack come either all contracted axes (they are the rows, `[I, O]` and `[H, W, I, O]`) or all output axes
    (`[O, I]` and `[O, I, H, W]`).
    """
    lead = len(layout.stack)
    if set(layout.stack) != set(range(lead)):
        return None
    for rows in (layout.inputs, layout.outputs):
        cut = lead + len(rows)
        if rows and cut < len(shape) and set(rows) == set(range(lead, cut)):
            return Axes(shape[:lead], shape[lead:cut], shape[cut:], rows is layout.outputs)
    return None


def to_matrix(weight: Array, layout: Layout) -> Array | None:
    """The weight as `[*stack, m, n]`, or None when it is no matrix in memory."""
    axes = split_axes(weight.shape, layout)
    return None if axes is None else weight.reshape(*axes.stack, math.prod(axes.rows), math.prod(axes.columns))


def by_matrix(
    split: Splitting,
    needs: frozenset[str] = frozenset(),
    *,
    nested: bool = True,
    span: Callable[[Array, Mapping[str, Array]], Array] | None = None,
) -> Factorization:
    """A factorization of the weight as one matrix, every layer of a stack on its own; of no grouped convolution.

    Args:
      split: given the matrix with the inputs as rows, whatever the weight stores first.
      needs: statistics that `split` reads; those over inputs arrive in the order of the rows.
      nested: as in `Factorization`.
      span: `(matrix [*stack, I, O], {need: array}) -> [*stack]`, see `Factorization`; given what `split` is given.
    """

    def unfold(weight: Array, layout: Layout) -> dict[str, Array]:
        # factors of a grouped kernel have no kernel of their own: multiplied out at every use, they would save nothing
        matrix = None if layout.groups > 1 else to_matrix(weight, layout)
        return {} if matrix is None else {"": matrix}

    def build(weight: Array, layout: Layout, ranks: dict[str, int], statistics: Mapping[str, Array]) -> LowRank:
        axes, matrix, stored = _inputs_first(weight, layout, statistics)
        if "key" in stored and axes.stack:
            stored["key"] = jax.random.split(stored["key"], axes.stack)
        one = lambda m, s: split(m, ranks[""], s)  # noqa: E731
        for _ in axes.stack:
            one = jax.vmap(one)
        left, right = one(matrix, stored)
        if axes.turned:
            left, right = jnp.swapaxes(right, -1, -2), jnp.swapaxes(left, -1, -2)
        left = left.reshape(*axes.stack, *axes.rows, ranks[""]).astype(weight.dtype)
        right = right.reshape(*axes.stack, ranks[""], *axes.columns).astype(weight.dtype)
        return LowRank(left, right, len(axes.columns))

    def known(weight: Array, layout: Layout, statistics: Mapping[str, Array]) -> Array | None:
        return None if span is None else span(*_inputs_first(weight, layout, statistics)[1:])

    return Factorization(needs, unfold, build, nested, None if span is None else known)


def _inputs_first(
    weight: Array, layout: Layout, statistics: Mapping[str, Array]
) -> tuple[Axes, Array, dict[str, Array]]:
    """Its axes, the matrix `[*stack, I, O]` with the inputs as rows, and the statistics in the order of those rows."""
    axes, matrix = split_axes(weight.shape, layout), to_matrix(weight, layout)
    if axes is None or matrix is None:
        raise ValueError(f"a weight of shape {weight.shape} with {layout} is no matrix.")
    stored = {need: _as_stored(value, weight.shape, layout) for need, value in statistics.items()}
    return axes, jnp.swapaxes(matrix, -1, -2) if axes.turned else matrix, stored


def _as_stored(value: Array, shape: tuple[int, ...], layout: Layout) -> Array:
    """A statistic over inputs, from the order of `layout.inputs` to that of memory."""
    sizes = [shape[a] for a in layout.inputs]
    count, lead = math.prod(sizes), len(layout.stack)
    if value.shape[lead:] not in ((count,), (count, count)):
        return value
    order = np.arange(count).reshape(sizes).transpose(np.argsort(layout.inputs)).reshape(-1)
    value = jnp.take(value, order, axis=lead)
    return jnp.take(value, order, axis=lead + 1) if value.ndim == lead + 2 else value


def spectra(matrices: Mapping[str, Array]) -> dict[str, np.ndarray]:
    """Squared singular values of each matrix `[*stack, m, n]`, largest first, summed over the layers of a stack.

    They are the eigenvalues of the smaller Gram matrix, true to rounding of the largest.
    """
    each = {path: _spectrum(matrix) for path, matrix in matrices.items()}
    return {path: np.asarray(values, np.float64) * float(largest) ** 2 for path, (values, largest) in each.items()}


@jax.jit
def _spectrum(matrix: Array) -> tuple[Array, Array]:
    """The spectrum of the matrix divided by its largest entry, and that entry."""
    matrix = wide(matrix)
    largest = jnp.max(jnp.abs(matrix), initial=0)
    matrix = matrix / jnp.where(largest > 0, largest, 1)  # squares of tiny and of huge numbers leave float32
    short = matrix if matrix.shape[-2] <= matrix.shape[-1] else jnp.swapaxes(matrix, -1, -2)
    gram = jnp.matmul(short, jnp.swapaxes(short, -1, -2), precision=lax.Precision.HIGHEST)
    values = jnp.maximum(jnp.linalg.eigvalsh(gram)[..., ::-1], 0)
    return jnp.sum(values.reshape(-1, values.shape[-1]), axis=0), largest


def wide(matrix: Array) -> Array:
    """The matrix in float32 at least: decompositions in half precision are noise."""
    return matrix.astype(jnp.promote_types(matrix.dtype, jnp.float32))


def truncated(matrix: Array, rank: int) -> tuple[Array, Array]:
    """`U_r sqrt(S_r) [m, r]` and `sqrt(S_r) V_r^T [r, n]`: the nearest matrix of this rank, its size shared evenly."""
    u, s, vt = jnp.linalg.svd(matrix, full_matrices=False)
    root = jnp.sqrt(s[:rank])
    return u[:, :rank] * root, root[:, None] * vt[:rank]


def shortened(leaf: LowRank, rank: int) -> LowRank:
    """The leaf with its first `rank` directions alone."""
    right = jax.lax.slice_in_dim(leaf.right, 0, rank, axis=leaf.stack)
    return LowRank(leaf.left[..., :rank], right, leaf.columns)


def found(weight: Any, kind: Callable[[Any], bool]) -> Any:
    """The first node of this kind inside a weight, or None."""
    return next((x for x in jax.tree.leaves(weight, is_leaf=kind) if kind(x)), None)
