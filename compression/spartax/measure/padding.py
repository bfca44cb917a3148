"""Equal batches, so that a jitted function compiles once."""

from collections.abc import Iterator

import numpy as np

from spartax import checks
from spartax.records import Array


def padded(batch_size: int, *arrays: Array | np.ndarray) -> Iterator[tuple[int, tuple[np.ndarray, ...]]]:
    """Batches of exactly `batch_size` rows; the last one is filled up with copies of its last row.

    Args:
      batch_size: rows of a batch, also when there are fewer examples.
      *arrays: `[N, ...]` each, N at least one.

    Returns:
      Iterator of `(count, batch)`: only the first `count` rows of each array in `batch` are real.

    Raises:
      ValueError: `batch_size` is not a positive integer, there are no rows, or the arrays differ in length.
    """
    checks.positive_int("batch_size", batch_size)
    lengths = {len(a) for a in arrays}
    if len(lengths) != 1 or lengths == {0}:
        raise ValueError(f"arrays must have one common, positive length; got {[len(a) for a in arrays]}.")
    return _padded(batch_size, [np.asarray(a) for a in arrays])


def _padded(size: int, arrays: list[np.ndarray]) -> Iterator[tuple[int, tuple[np.ndarray, ...]]]:
    # Apart from `padded`, so that bad arguments fail at the call and not at the first batch.
    rows = np.arange(len(arrays[0]))
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        filled = np.concatenate([part, np.repeat(part[-1:], size - len(part))])
        yield len(part), tuple(a[filled] for a in arrays)
