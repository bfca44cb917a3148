"""Bytes, weight by weight."""

import math
from typing import Any, NamedTuple

import jax
import numpy as np

from spartax import tree
from spartax.arrays import Packed, Permuted, dense, is_leaf, nbytes, pack
from spartax.records import Params, Path


class Size(NamedTuple):
    """What one weight takes.

    Attributes:
      leaf: what it is stored as: `"float32"`, `"Masked"`, `"Sum(Quantized(4-bit), LowRank)"`.
      shape: shape of the dense weight.
      dense: bytes of the dense weight.
      packed: exact bytes of its smallest storage, with masks, codes, scales and factors.
      sparsity: fraction of zeros in the dense weight.
    """

    leaf: str
    shape: tuple[int, ...]
    dense: int
    packed: int
    sparsity: float


def sizes(params: Params) -> dict[Path, Size]:
    """The size of every weight by path. Needs values: how much a mask saves depends on them."""
    zeros = sparsity(params)
    return {path: _size(weight, zeros[path]) for path, weight in tree.weights(params).items()}


def sparsity(params: Params) -> dict[Path, float]:
    """The fraction of zeros in the dense values of every weight by path."""
    values = tree.weights(jax.jit(dense)(params))
    return {path: float(np.mean(np.asarray(v) == 0)) if v.size else 0.0 for path, v in values.items()}


def _size(weight: Any, zeros: float) -> Size:
    shape = tuple(weight.shape)
    packed = nbytes(pack(weight) if is_leaf(weight) else weight)
    return Size(describe(weight), shape, math.prod(shape) * np.dtype(weight.dtype).itemsize, packed, zeros)


def describe(weight: Any) -> str:
    """A weight in words: the class of a leaf and of the leaves inside it, or the dtype of an array."""
    if isinstance(weight, Packed):
        return f"{weight.bits}-bit"
    if isinstance(weight, Permuted):
        return describe(weight.value)
    if not is_leaf(weight):
        return np.dtype(weight.dtype).name
    inside = [x for x in jax.tree.leaves(weight, is_leaf=lambda x: is_leaf(x) and x is not weight) if is_leaf(x)]
    names = [describe(x) for x in inside if not (isinstance(x, Permuted) and not is_leaf(x.value))]
    return type(weight).__name__ + (f"({', '.join(names)})" if names else "")


def summary(params: Params) -> str:
    """A text table of every weight: path, leaf, shape, bytes dense and packed, sparsity; and the total.

    Args:
      params: tree of arrays and compressed leaves with values.

    Returns:
      Aligned lines for printing; bytes are packed bytes without the header of a file.

    Example:
      >>> import jax.numpy as jnp
      >>> import spartax as sx
      >>> print(sx.summary({"kernel": sx.LowRank(jnp.ones((8, 1)), jnp.ones((1, 6)))}))
      weight  stored as  shape  bytes dense  bytes packed  sparsity
      kernel  LowRank    8 x 6          192            56      0.0%
      total   1 weights  48             192            56      0.0%
    """
    found = sizes(params)
    dense_total, packed_total = sum(s.dense for s in found.values()), sum(s.packed for s in found.values())
    zeros = sum(s.sparsity * math.prod(s.shape) for s in found.values())
    count = sum(math.prod(s.shape) for s in found.values())
    lines = [("weight", "stored as", "shape", "bytes dense", "bytes packed", "sparsity")]
    lines += [_cells(path, size) for path, size in found.items()]
    lines += [
        _cells("total", Size(f"{len(found)} weights", (count,), dense_total, packed_total, zeros / max(count, 1)))
    ]
    widths = [max(len(line[i]) for line in lines) for i in range(6)]
    aligned = [[c.ljust(w) if i < 3 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths))] for line in lines]
    return "\n".join("  ".join(line).rstrip() for line in aligned)


def _cells(path: Path, size: Size) -> tuple[str, ...]:
    shape = " x ".join(str(n) for n in size.shape) or "scalar"
    return path, size.leaf, shape, f"{size.dense:,}", f"{size.packed:,}", f"{size.sparsity:.1%}"
