"""Columns of a matrix replaced one after another while those to come make up for the error (optimal brain surgeon).

For a layer `y = W x` with `H = E[x x^T]` the output error of a change D of the weights is `tr(D H D^T)`. When column j
is replaced, the columns after it can move so that the error grows least; with `H^-1 = U^T U`, U upper triangular, the
best move is `W[:, j:] -= (W[:, j] - new) / U[j, j] * U[j, j:]` (Frantar and Alistarh, SparseGPT, arXiv 2301.00774;
Frantar et al., GPTQ, arXiv 2210.17323). `R = U^-1`, `H = R R^T`, does the same without an inverse of H (LDLQ of Chee et
al., QuIP, arXiv 2307.13304): all columns b before columns c move these by `(W - new)[:, b] R[b, c] R[c, c]^-1`, so that
most of the work is a product of matrices, and only small squares of R are inverted.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from spartax.records import Array

Found = tuple[Array, Array]  # new columns, and their records
Choose = Callable[[Array, Array, Array], Any]  # (columns [..., O, span], U's diagonal [..., span], start) -> choice
Settle = Callable[[Array, Any, Array], tuple[Array, Array]]  # (column [..., O], choice, number) -> (new column, record)


def factor(moments: Array, damping: float | Array) -> tuple[Array, Array]:
    """`(R, alive)`: the upper triangular R, `R R^T = H + damping mean(diag H) I`, and which inputs are not zero.

    H is `moments [..., I, I]`. Inputs that are always zero are not in the mean, and get it on the diagonal, so that R
    changes with the unit of the others alone. (To scale the diagonal to ones first is not needed: the error of a
    Cholesky factor does not depend on the units of the inputs.)

    Args:
      moments: one H for each matrix.
      damping: one number, or one for each matrix.

    Returns:
      R `[..., I, I]` (NaN where the damped H is not positive definite), and bool `[..., I]`.
    """
    diagonal = jnp.diagonal(moments, axis1=-2, axis2=-1)
    alive = diagonal > 0
    size = jnp.sum(diagonal, axis=-1, keepdims=True) / jnp.maximum(jnp.sum(alive, axis=-1, keepdims=True), 1)
    size = jnp.where(size > 0, size, 1)  # nothing flows in at all
    added = jnp.where(alive, 0, size) + jnp.asarray(damping, size.dtype)[..., None] * size
    flipped = jnp.flip(moments + added[..., None] * jnp.eye(moments.shape[-1], dtype=moments.dtype), (-2, -1))
    return jnp.flip(jnp.linalg.cholesky(flipped), (-2, -1)), alive


def inverse_diagonal(upper: Array) -> Array:
    """The diagonal `[..., I]` of `(R R^T)^-1`."""
    eye = jnp.broadcast_to(jnp.eye(upper.shape[-1], dtype=upper.dtype), upper.shape)
    return jnp.sum(jnp.square(lax.linalg.triangular_solve(upper, eye, left_side=True)), axis=-2)


def replace_columns(
    matrix: Array, upper: Array, choose: Choose, settle: Settle, *, span: int, block: int
) -> tuple[Array, Array]:
    """The matrix `[..., O, I]` with every column settled and all errors passed on, and the records of its columns.

    The columns are visited in order, `span` at a time: `choose(columns, diagonal, start)` looks at a group as the
    errors so far have made it and decides (a mask, a scale); then `settle(column, choice, number)` gives each new
    column, and a record of it (kept or not, codes). The program does not grow with the matrix.

    Args:
      matrix: the weights, a row for each output.
      upper: R `[..., I, I]` of `factor`.
      choose: called with `[..., O, span]`, the diagonal of U there, and the index of the first column (traced).
      settle: called with `[..., O]`, the choice, and the number of the column in its group (traced).
      span: columns that are decided together; it must divide `block`.
      block: columns settled between two products with all that was settled before; it must divide I.
    """

    def advance(k: Array, carry: Found) -> Found:
        change = lambda i: _slice(matrix, i, block) - _slice(carry[0], i, block)  # noqa: E731
        columns = _slice(upper, k, block)
        passed = lambda i, total: total + _times(change(i), _slice(columns, i, block, -2))  # noqa: E731
        arrived = lax.fori_loop(0, k, passed, jnp.zeros_like(change(k)))
        see = lambda columns, diagonal, first: choose(columns, diagonal, k * block + first)  # noqa: E731
        square, own = _slice(columns, k, block, -2), jax.tree.map(lambda a: _slice(a, k, block), carry)
        return _put(carry, _settle_block(_slice(matrix, k, block), arrived, own, square, see, settle, span), k, block)

    def record(columns: Array, diagonal: Array, first: Array) -> Array:
        return settle(columns[..., 0], choose(columns[..., :span], diagonal[..., :span], first), first)[1]

    kind = jax.eval_shape(record, matrix, upper[..., 0, :], jax.ShapeDtypeStruct((), jnp.int32)).dtype
    return lax.fori_loop(0, matrix.shape[-1] // block, advance, (matrix, jnp.zeros(matrix.shape, kind)))


def widened(matrix: Array, inputs: int) -> Array:
    """Zero columns at the end, up to `inputs` of them: `[..., O, inputs]`."""
    return jnp.pad(matrix, [(0, 0)] * (matrix.ndim - 1) + [(0, inputs - matrix.shape[-1])])


def bordered(upper: Array, inputs: int) -> Array:
    """The factor `[..., inputs, inputs]` with ones on the diagonal of the columns that `widened` adds."""
    extra = inputs - upper.shape[-1]
    grown = jnp.pad(upper, [(0, 0)] * (upper.ndim - 2) + [(0, extra), (0, extra)])
    return grown + jnp.diag(jnp.arange(inputs) >= upper.shape[-1]).astype(upper.dtype)


def _settle_block(
    old: Array, arrived: Array, found: Found, square: Array, choose: Choose, settle: Settle, span: int
) -> Found:
    """A block, group by group; `arrived` is `(W - new) R` of all columns before the block."""

    def group(k: Array, carry: tuple[Array, Found]) -> tuple[Array, Found]:
        lines, before = _slice(square, k, span, -2), _slice(old, k, span)
        factor = _slice(lines, k, span)
        inverse = lax.linalg.triangular_solve(
            factor, jnp.broadcast_to(jnp.eye(span, dtype=old.dtype), factor.shape), left_side=True
        )
        moved = before + _times(_slice(carry[0], k, span), inverse)
        choice = choose(moved, jnp.diagonal(inverse, axis1=-2, axis2=-1), k * span)
        own = _settle_group(moved, jax.tree.map(lambda a: _slice(a, k, span), carry[1]), inverse, choice, settle)
        return carry[0] + _times(before - own[0], lines), _put(carry[1], own, k, span)

    return lax.fori_loop(0, old.shape[-1] // span, group, (arrived, found))[1]


def _settle_group(columns: Array, found: Found, inverse: Array, choice: Any, settle: Settle) -> Found:
    """Columns that were decided together, one after another."""
    diagonal = jnp.diagonal(inverse, axis1=-2, axis2=-1)

    def column(j: Array, carry: tuple[Array, Found]) -> tuple[Array, Found]:
        columns, found = carry
        old = lax.dynamic_index_in_dim(columns, j, -1, keepdims=False)
        now = settle(old, choice, j)
        error = (old - now[0]) / lax.dynamic_index_in_dim(diagonal, j, -1)
        columns = columns - error[..., None] * lax.dynamic_index_in_dim(inverse, j, -2)  # the line is zero before j
        return columns, jax.tree.map(lambda a, b: lax.dynamic_update_index_in_dim(a, b, j, -1), found, now)

    return lax.fori_loop(0, columns.shape[-1], column, (columns, found))[1]


def _slice(array: Array, number: Array, size: int, axis: int = -1) -> Array:
    return lax.dynamic_slice_in_dim(array, number * size, size, axis)


def _put(found: Found, own: Found, number: Array, size: int) -> Found:
    return jax.tree.map(lambda a, b: lax.dynamic_update_slice_in_dim(a, b, number * size, -1), found, own)


def _times(left: Array, right: Array) -> Array:
    return jnp.einsum("...oi,...ij->...oj", left, right, precision=lax.Precision.HIGHEST)
