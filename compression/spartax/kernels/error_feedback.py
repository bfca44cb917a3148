"""Columns of a matrix replaced one after another while those to come make up for the error (optimal brain surgeon).

For a layer `y = W x` with `H = E[x x^T]` the output error of a change D of the weights is `tr(D H D^T)`. When column j
is replaced, the columns after it can move so that the error grows least; with `H^-1 = U^T U`, U upper triangular, the
best move is `W[:, j:] -= (W[:, j] - new) / U[j, j] * U[j, j:]` (Frantar and Alistarh, SparseGPT, arXiv 2301.00774;
Frantar et al., GPTQ, arXiv 2210.17323). A block of columns is settled before its error reaches the columns behind it,
which turns most of the work into matrix products.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from spartax.records import Array

Choose = Callable[[Array, Array, Array], Any]  # (columns [..., O, span], U's diagonal [..., span], start) -> choice
Settle = Callable[[Array, Any, Array], tuple[Array, Array]]  # (column [..., O], choice, number) -> (new column, record)


def inverse_factor(moments: Array, damping: float | Array) -> tuple[Array, Array]:
    """`(U, alive)`: the upper triangular U, `U^T U = (H + damping mean(diag H) I)^-1`, and which inputs are not zero.

    H is `moments [..., I, I]`. Inputs that are always zero are not in the mean, and get it on the diagonal, so that U
    changes with the unit of the others alone. U is the inverse of an upper triangular factor of H itself, so H is
    inverted once, as a triangle. (To scale the diagonal to ones first is not needed: the error of a Cholesky factor
    does not depend on the units of the inputs.)

    Args:
      moments: one H for each matrix.
      damping: one number, or one for each matrix.

    Returns:
      U `[..., I, I]` (NaN where the damped H is not positive definite), and bool `[..., I]`.
    """
    diagonal = jnp.diagonal(moments, axis1=-2, axis2=-1)
    alive = diagonal > 0
    eye = jnp.eye(moments.shape[-1], dtype=moments.dtype)
    size = jnp.sum(diagonal, axis=-1, keepdims=True) / jnp.maximum(jnp.sum(alive, axis=-1, keepdims=True), 1)
    size = jnp.where(size > 0, size, 1)  # nothing flows in at all
    added = jnp.where(alive, 0, size) + jnp.asarray(damping, size.dtype)[..., None] * size
    flipped = jnp.flip(moments + added[..., None] * eye, (-2, -1))
    factor = jnp.flip(jnp.linalg.cholesky(flipped), (-2, -1))  # H = R R^T with R upper triangular
    return lax.linalg.triangular_solve(factor, jnp.broadcast_to(eye, factor.shape), left_side=True), alive


def replace_columns(
    matrix: Array, upper: Array, choose: Choose, settle: Settle, *, span: int, block: int
) -> tuple[Array, Array]:
    """The matrix `[..., O, I]` with every column settled and all errors passed on, and the records of its columns.

    The columns are visited in order, `span` at a time: `choose(columns, diagonal, start)` looks at a group as the
    errors so far have made it and decides (a mask, a scale); then `settle(column, choice, number)` gives each new
    column, and a record of it (kept or not, codes). The program does not grow with the matrix.

    Args:
      matrix: the weights, a row for each output.
      upper: U `[..., I, I]` of `inverse_factor`.
      choose: called with `[..., O, span]`, the diagonal of U there, and the index of the first column (traced).
      settle: called with `[..., O]`, the choice, and the number of the column in its group (traced).
      span: columns that are decided together; it must divide `block`.
      block: columns settled before the rest is brought up to date; it must divide I.
    """

    def advance(k: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        matrix, records = carry
        start = k * block
        lines = lax.dynamic_slice_in_dim(upper, start, block, axis=-2)  # [..., block, I]
        square = lax.dynamic_slice_in_dim(lines, start, block, axis=-1)
        columns = lax.dynamic_slice_in_dim(matrix, start, block, axis=-1)
        columns, errors, own = _settle_block(columns, square, start, choose, settle, span)
        passed = jnp.einsum("...ob,...bi->...oi", errors, lines, precision=lax.Precision.HIGHEST)
        matrix = lax.dynamic_update_slice_in_dim(matrix - passed, columns, start, axis=-1)
        return matrix, lax.dynamic_update_slice_in_dim(records, own, start, axis=-1)

    records = jnp.zeros(matrix.shape, _record_dtype(matrix, upper, choose, settle, span))
    return lax.fori_loop(0, matrix.shape[-1] // block, advance, (matrix, records))


def widened(matrix: Array, inputs: int) -> Array:
    """Zero columns at the end, up to `inputs` of them: `[..., O, inputs]`."""
    return jnp.pad(matrix, [(0, 0)] * (matrix.ndim - 1) + [(0, inputs - matrix.shape[-1])])


def bordered(upper: Array, inputs: int) -> Array:
    """The factor `[..., inputs, inputs]` with ones on the diagonal of the columns that `widened` adds."""
    extra = inputs - upper.shape[-1]
    grown = jnp.pad(upper, [(0, 0)] * (upper.ndim - 2) + [(0, extra), (0, extra)])
    return grown + jnp.diag(jnp.arange(inputs) >= upper.shape[-1]).astype(upper.dtype)


def _settle_block(
    columns: Array, square: Array, start: Array, choose: Choose, settle: Settle, span: int
) -> tuple[Array, Array, Array]:
    """The settled columns of a block, the scaled error `(old - new) / U[j, j]` of each, and the records."""
    diagonal = jnp.diagonal(square, axis1=-2, axis2=-1)

    def group(k: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        first = k * span
        own, pivots = (lax.dynamic_slice_in_dim(a, first, span, axis=-1) for a in (carry[0], diagonal))
        choice = choose(own, pivots, start + first)
        return lax.fori_loop(0, span, lambda i, carry: column(first + i, i, choice, carry), carry)

    def column(j: Array, number: Array, choice: Any, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        columns, errors, records = carry
        old = lax.dynamic_index_in_dim(columns, j, -1, keepdims=False)
        new, record = settle(old, choice, number)
        error = (old - new) / lax.dynamic_index_in_dim(diagonal, j, -1)
        columns = columns - error[..., None] * lax.dynamic_index_in_dim(square, j, -2)  # the line is zero before j
        columns = lax.dynamic_update_index_in_dim(columns, new, j, -1)
        errors = lax.dynamic_update_index_in_dim(errors, error, j, -1)
        return columns, errors, lax.dynamic_update_index_in_dim(records, record, j, -1)

    records = jnp.zeros(columns.shape, _record_dtype(columns, square, choose, settle, span))
    return lax.fori_loop(0, columns.shape[-1] // span, group, (columns, jnp.zeros_like(columns), records))


def _record_dtype(matrix: Array, upper: Array, choose: Choose, settle: Settle, span: int) -> Any:
    def record(matrix: Array, diagonal: Array, first: Array) -> Array:
        return settle(matrix[..., 0], choose(matrix[..., :span], diagonal[..., :span], first), first)[1]

    return jax.eval_shape(record, matrix, upper[..., 0, :], jax.ShapeDtypeStruct((), jnp.int32)).dtype
