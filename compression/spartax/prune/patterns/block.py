"""Blocks: whole tiles of the matrix, which matrix units multiply or skip."""

from spartax import checks
from spartax.prune.patterns._units import Units, reduction
from spartax.records import Pattern


def block(shape: tuple[int, int] = (32, 32), reduce: str = "mean") -> Pattern:
    """Keeps whole `shape` blocks of the matrix `[inputs, outputs]` that the weight is.

    A convolution kernel `[H, W, I, O]` is the matrix `[H W I, O]`. Blocks at an edge are smaller where `shape` does not
    divide; a matrix smaller than a block is one block. `keep` counts entries: the best blocks that fit in it are kept,
    so no more than asked for, and exactly that where it is a whole number of equal blocks (`prune` sees to it). Ties go
    to the lower index. See Gray et al., GPU Kernels for Block-Sparse Weights (2017).

    Args:
      shape: rows and columns of a block.
      reduce: score of a block: the `"mean"` or the `"sum"` of its entries'; they differ at edges, and between weights
        when an allocation ranks them together.

    Raises:
      ValueError: a shape that is not two positive integers, or another reduction.
    """
    if not isinstance(shape, (tuple, list)) or len(shape) != 2:
        raise ValueError(f"shape must be (rows, columns) of a block; got {shape!r}.")
    for side in shape:
        checks.positive_int("shape", side)
    rows, columns = shape
    return Units(lambda inputs, outputs, spatial: (rows, columns), reduction(reduce))
