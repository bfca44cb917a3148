"""A compressed matrix with a low-rank term beside it, as one product: `kernels.lowrank_residual_matmul` for leaves."""

import functools
from typing import Any

from spartax.arrays import matrix_view, quantized_rows, verbs
from spartax.arrays.block_sparse import BlockSparse, case_of
from spartax.arrays.lowrank import LowRank, first_factor
from spartax.arrays.matrix_view import MatrixView
from spartax.arrays.nm_sparse import NMSparse, choose_path
from spartax.arrays.quantized import Quantized
from spartax.arrays.use import Use
from spartax.kernels import lowrank_residual_matmul as kernel
from spartax.kernels import paths
from spartax.kernels.block_sparse_matmul import Structure, choice
from spartax.kernels.lowrank_residual_matmul.bases import Base
from spartax.records import Array

APART = paths.Choice(None, "each term on its own")


def choose(weight: Any, low: LowRank, use: Use) -> paths.Choice:
    """The path of the one product of `weight` (a leaf or array) and `low`; None if they are better left apart."""
    if use.op != "dot_general" or len(use.weight.shape) != 2 or first_factor(low, use) is None:
        return APART
    return _choose(weight, use)


@functools.singledispatch
def _choose(weight: Any, use: Use) -> paths.Choice:
    return APART if verbs.is_leaf(weight) else kernel.choose_dense(use.x.dtype)


@_choose.register
def _(weight: Quantized, use: Use) -> paths.Choice:
    found = quantized_rows.read(weight, use)
    if isinstance(found, str):
        return APART
    return kernel.choose(quantized_rows.choose(weight, found, use), kernel.Codes)


@_choose.register
def _(weight: NMSparse, use: Use) -> paths.Choice:
    if matrix_view.side(weight.view, use) != "inputs" or weight.view.matrix[0] % weight.m:
        return APART
    return kernel.choose(choose_path(weight, use), kernel.Groups)


@_choose.register
def _(weight: BlockSparse, use: Use) -> paths.Choice:
    ragged = any(n % side for n, side in zip(weight.view.matrix, weight.block))
    case = case_of(weight, use)
    if case is None or ragged or not case.stored or matrix_view.side(weight.view, use) != "inputs":
        return APART
    return kernel.choose(choice.choose(case), kernel.Blocks)


def contract(weight: Any, low: LowRank, use: Use, x: Array) -> Array:
    """The result of a use for which `choose` names a path."""
    path = choose(weight, low, use).path or "reference"
    left, right = verbs.dense(low.left), verbs.dense(low.right)
    u, v = (left, right) if first_factor(low, use) == "left" else (right.T, left.T)
    view, base = _base(weight, use)

    def product(_: int, rows: Array) -> Array:
        return kernel.lowrank_residual_matmul(rows, base, u, v, path=path, precision=use.params["precision"])

    with quantized_rows.precision(use):
        return matrix_view.multiply(view, use, x, product)


@functools.singledispatch
def _base(weight: Any, use: Use) -> tuple[MatrixView, Base]:
    """The weight as the kernel takes it, and how its axes make up that matrix."""
    inputs, outputs = use.layout.inputs, use.layout.outputs
    view = MatrixView.of(weight.shape, inputs, outputs)
    return view, kernel.Dense(view.rows_of(weight))


@_base.register
def _(weight: Quantized, use: Use) -> tuple[MatrixView, Base]:
    found = quantized_rows.read(weight, use)
    assert not isinstance(found, str), found
    data, scale, zero = quantized_rows.matrices(weight, found)
    return found.view, kernel.Codes(data[0], scale[0], None if zero is None else zero[0], found.form)


@_base.register
def _(weight: NMSparse, use: Use) -> tuple[MatrixView, Base]:
    return weight.view, kernel.Groups(verbs.dense(weight.values), weight.places.data, weight.m)


@_base.register
def _(weight: BlockSparse, use: Use) -> tuple[MatrixView, Base]:
    return weight.view, kernel.Blocks(verbs.dense(weight.values), Structure(weight.rows, weight.counts))
