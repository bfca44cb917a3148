"""`BlockSparse`: the stored blocks of a weight, and where they stand."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spartax import checks
from spartax.arrays import matrix_view, packed, verbs
from spartax.arrays.matrix_view import MatrixView
from spartax.arrays.permuted import Permuted
from spartax.arrays.use import Use
from spartax.kernels.block_sparse_matmul import Structure, block_sparse_matmul, choice, reference, transposed
from spartax.records import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class BlockSparse(verbs.Leaf):
    """A weight seen as a matrix `[inputs, outputs]`, of which only some blocks are stored; the others are zero.

    Blocks lie in the order of their column of blocks, then of their row (compressed sparse columns of blocks). A column
    may hold any number of them, none included; blocks at an edge are padded with zeros.

    Attributes:
      values: `[n, r, c]`, an array or leaf; more axes in front are a stack.
      rows: `[n]` unsigned integers, the row of blocks of each.
      counts: `[columns of blocks]` unsigned integers, how many blocks each column of blocks holds.
      size: sizes of the axes of the matrix, inputs before outputs.
      columns: how many of these axes are outputs.
      order: `dense` axis `k` is axis `order[k]` of the matrix.
    """

    values: Any
    rows: Array
    counts: Array
    size: tuple[int, ...] = dataclasses.field(metadata={"static": True})
    columns: int = dataclasses.field(metadata={"static": True})
    order: tuple[int, ...] = dataclasses.field(metadata={"static": True})

    @property
    def stack(self) -> tuple[int, ...]:
        """Sizes of the leading stack axes."""
        return tuple(self.values.shape[:-3])

    @property
    def view(self) -> MatrixView:
        """The weight as a matrix."""
        return MatrixView(self.size, self.columns, self.order)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the dense weight."""
        return (*self.stack, *self.view.shape)

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the values."""
        return verbs.float_dtype(self.values)

    @property
    def block(self) -> tuple[int, int]:
        """Rows and columns of a block."""
        r, c = self.values.shape[-2:]
        return r, c

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of blocks."""
        (m, n), (r, c) = self.view.matrix, self.block
        return -(-m // r), -(-n // c)


def block_sparse(
    x: Any, mask: Array, block: tuple[int, int], inputs: tuple[int, ...], outputs: tuple[int, ...]
) -> BlockSparse:
    """The blocks of `x` (an array, or codes whose zero means zero) that hold an entry where `mask` is True.

    The number of blocks becomes a shape, so this needs concrete values and cannot run under `jit`.

    Args:
      x: the weight; `Packed` codes stay packed.
      mask: bool, the shape of the weight.
      block: rows and columns of a block of the matrix.
      inputs: axes of the weight that are the rows of the matrix.
      outputs: axes that are its columns.

    Raises:
      ValueError: under `jit`, a block that is not two positive integers, or axes that are not all axes once.
    """
    if not checks.is_concrete(mask):
        raise ValueError("the number of stored blocks is only known outside jit; make BlockSparse of concrete arrays.")
    for side in block:
        checks.positive_int("block", side)
    view = MatrixView.of(tuple(mask.shape), inputs, outputs)
    kept = _tiles(view.rows_of(np.asarray(mask)), block).any(axis=(2, 3))
    column, row = np.nonzero(kept.T)
    values = _tiles(view.rows_of(jnp.where(mask, verbs.dense(x), 0)), block)[row, column]
    codes = x.value if isinstance(x, Permuted) else x
    if isinstance(codes, packed.Packed):
        values = packed.pack_codes(values, codes.bits, codes.low)
    counts = np.bincount(column, minlength=kept.shape[1])
    return BlockSparse(values, _small(row, kept.shape[0]), _small(counts, kept.shape[0]), *view)


def _tiles(matrix: Any, block: tuple[int, int]) -> Any:
    """`[rows of blocks, columns of blocks, r, c]`, padded with zeros at the edges."""
    xp = np if isinstance(matrix, np.ndarray) else jnp
    (m, n), (r, c) = matrix.shape, block
    padded = xp.pad(matrix, ((0, -m % r), (0, -n % c)))
    return xp.swapaxes(padded.reshape(-1, r, padded.shape[1] // c, c), 1, 2)


def _small(values: np.ndarray, most: int) -> Array:
    """Unsigned integers up to `most`, as narrow as that allows."""
    return jnp.asarray(values.astype(np.min_scalar_type(most)))


def _structure(leaf: BlockSparse) -> Structure:
    return Structure(leaf.rows, leaf.counts)


@verbs.dense.register
def _(leaf: BlockSparse) -> Array:
    def one(values: Array, structure: Structure) -> Array:
        m, n = leaf.view.matrix
        return leaf.view.weight_of(reference.dense(values, structure, leaf.grid[0])[:m, :n])

    for _ in leaf.stack:
        one = jax.vmap(one)
    return one(verbs.dense(leaf.values), _structure(leaf))


@verbs.pack.register
def _(leaf: BlockSparse) -> BlockSparse:
    return dataclasses.replace(leaf, values=verbs.pack(leaf.values)) if verbs.is_leaf(leaf.values) else leaf


def case_of(leaf: BlockSparse, use: Use) -> choice.Case | None:
    """What the choice of a path depends on, or None for a use that is no product with the matrix."""
    side = matrix_view.side(leaf.view, use, len(leaf.stack))
    if side is None:
        return None
    case = choice.Case(
        matrix_view.batch(use), leaf.grid, leaf.block, leaf.values.shape[-3], use.x.dtype, matrix_view.taps(use)
    )
    return case if side == "inputs" else case.transposed


@verbs.plan.register
def _(leaf: BlockSparse, use: Use) -> verbs.Plan:
    case = case_of(leaf, use)
    if case is None:
        return verbs.Plan(None, "BlockSparse: the contracted axes are not one side of its matrix", use.macs)
    chosen = choice.choose(case)
    if chosen.path is None:
        return verbs.Plan(None, f"BlockSparse: {chosen.why}", use.macs)
    return verbs.Plan(f"block-sparse matmul, {chosen.path}", chosen.why, round(use.macs * case.density))


@verbs.contract.register
def _(leaf: BlockSparse, use: Use, x: Array) -> Array:
    case = case_of(leaf, use)
    path = (choice.choose(case).path if case else None) or "xla"
    forward = matrix_view.side(leaf.view, use, len(leaf.stack)) == "inputs"
    layers = math.prod(leaf.stack)
    flat = lambda v, ndim: v.reshape(layers, *v.shape[v.ndim - ndim :])  # noqa: E731
    all_values, all_rows, all_counts = flat(verbs.dense(leaf.values), 3), flat(leaf.rows, 1), flat(leaf.counts, 1)
    (m, n), (r, c) = leaf.view.matrix, leaf.block

    def product(i: int, x: Array) -> Array:
        values, structure = all_values[i], Structure(all_rows[i], all_counts[i])
        if not forward:
            values, structure = transposed(values, structure, leaf.grid[0])
        x = jnp.pad(x, ((0, 0), (0, -x.shape[1] % (r if forward else c))))
        out = block_sparse_matmul(x, values, structure, path=path, precision=use.params["precision"])
        return out[:, : n if forward else m]

    return matrix_view.multiply(leaf.view, use, x, product, len(leaf.stack))


def _replaced(leaf: BlockSparse, view: MatrixView | None) -> BlockSparse | None:
    if view is None:
        return None
    return dataclasses.replace(leaf, size=view.size, columns=view.columns, order=view.order)


@verbs.transpose.register
def _(leaf: BlockSparse, axes: tuple[int, ...]) -> BlockSparse | None:
    """Only the note on the order changes."""
    return _replaced(leaf, leaf.view.transposed(axes, len(leaf.stack)))


@verbs.reshape.register
def _(leaf: BlockSparse, shape: tuple[int, ...]) -> BlockSparse | None:
    return None if leaf.stack else _replaced(leaf, leaf.view.reshaped(shape))


@verbs.astype.register
def _(leaf: BlockSparse, dtype: Any) -> BlockSparse | None:
    values = verbs.astype(leaf.values, dtype) if verbs.is_leaf(leaf.values) else leaf.values.astype(dtype)
    return None if values is None else dataclasses.replace(leaf, values=values)


@verbs.sliceable.register
def _(leaf: BlockSparse) -> bool:
    return bool(leaf.stack) and verbs.sliceable(leaf.values)


@verbs.map_arrays.register
def _(leaf: BlockSparse, fn) -> BlockSparse:
    return dataclasses.replace(leaf, values=verbs.map_arrays(leaf.values, fn))
