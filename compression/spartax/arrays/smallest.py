"""The smallest exact storage of a masked array: bits for every entry, N:M groups, or blocks."""

from typing import Any, NamedTuple

import numpy as np

from spartax import checks
from spartax.arrays import packed, verbs
from spartax.arrays.bitmask import Bitmask, compact
from spartax.arrays.block_sparse import BlockSparse, block_sparse
from spartax.arrays.matrix_view import MatrixView
from spartax.arrays.nm_sparse import NMSparse, nm_sparse
from spartax.arrays.permuted import Permuted
from spartax.kernels.bits import packed_length
from spartax.kernels.nm_matmul.form import bits_of
from spartax.records import Array

SIDES = (128, 64, 32, 16, 8, 4)
GROUPS = (2, 4, 8, 16, 32)


class Blocks(NamedTuple):
    """Store blocks of this shape, of the matrix with these axes."""

    block: tuple[int, int]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


class Groups(NamedTuple):
    """Store `n` of every `m`, of the matrix with these axes."""

    n: int
    m: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def smallest(x: Any, mask: Array) -> Bitmask | BlockSparse | NMSparse:
    """The entries of `x` (an array, or codes whose zero means zero) where `mask` is True, in the fewest bytes.

    Bytes of every form are counted on the mask, and the smallest is made; on a tie one with a structure that kernels
    can use. Which axes are inputs is not asked: both usual layouts (inputs before outputs, outputs first) are tried.
    """
    if not checks.is_concrete(mask):
        return compact(x, mask)  # which says that this cannot be done under jit
    kept, bits = np.asarray(mask), value_bits(x)
    sizes = structured_bytes(kept, bits)
    best = min(sizes, key=lambda form: sizes[form], default=None)
    if best is None or sizes[best] > bitmask_bytes(kept, bits):
        return compact(x, mask)
    return block_sparse(x, mask, *best) if isinstance(best, Blocks) else nm_sparse(x, mask, *best)


def value_bits(x: Any) -> int:
    """Bits that one entry takes."""
    codes = x.value if isinstance(x, Permuted) else x
    return codes.bits if isinstance(codes, packed.Packed) else 8 * verbs.float_dtype(codes).itemsize


def bitmask_bytes(mask: np.ndarray, bits: int) -> int:
    """Bytes of `Bitmask`: its values, and one bit an entry along the axis that wastes least."""
    plane = min((mask.size // max(n, 1) * packed_length(n, 1) for n in mask.shape), default=0)
    return -(-int(mask.sum()) * bits // 8) + plane


def structured_bytes(mask: np.ndarray, bits: int) -> dict[Blocks | Groups, int]:
    """Bytes of the block and N:M forms of a mask, larger blocks first."""
    found: dict[Blocks | Groups, int] = {}
    for inputs, outputs in _layouts(mask.ndim):
        matrix = MatrixView.of(mask.shape, inputs, outputs).rows_of(mask)
        if mask.ndim > 2 or inputs == (0,):  # blocks of a matrix and of its transpose are the same
            found |= {Blocks(b, inputs, outputs): size for b, size in _block_bytes(matrix, bits).items()}
        found |= {Groups(*g, inputs, outputs): size for g, size in _group_bytes(matrix, bits).items()}
    return found


def _layouts(ndim: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Axes of the inputs and outputs as Flax stores them, and outputs first."""
    if ndim < 2:
        return []
    return [(tuple(range(ndim - 1)), (ndim - 1,)), ((*range(2, ndim), 1), (0,))]


def _block_bytes(matrix: np.ndarray, bits: int) -> dict[tuple[int, int], int]:
    found = {}
    m, n = matrix.shape
    high, wide = (tuple(dict.fromkeys(min(side, length) for side in SIDES)) for length in (m, n))
    for r in dict.fromkeys((*high, 1, m)):
        rows = np.logical_or.reduceat(matrix, np.arange(0, m, r), axis=0)
        # besides blocks of usual sides whole rows and whole columns, which no kernel is fast for
        for c in dict.fromkeys((*(wide if r in high else ()), *((n,) if r == 1 else ()), *((1,) if r == m else ()))):
            kept = np.logical_or.reduceat(rows, np.arange(0, n, c), axis=1)
            count, index = int(kept.sum()), np.min_scalar_type(len(kept)).itemsize
            found[r, c] = -(-count * r * c * bits // 8) + (count + kept.shape[1]) * index
    return found


def _group_bytes(matrix: np.ndarray, bits: int) -> dict[tuple[int, int], int]:
    found = {}
    for m in GROUPS:
        groups = -(-matrix.shape[0] // m)
        counts = np.add.reduceat(matrix, np.arange(0, matrix.shape[0], m), axis=0, dtype=np.int32)
        n = max(1, int(counts.max(initial=0)))
        if n < m:
            places = n * packed_length(groups, bits_of(m)) * matrix.shape[1]
            found[n, m] = -(-n * groups * matrix.shape[1] * bits // 8) + places
    return found
