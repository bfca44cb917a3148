"""Deterministic batches."""

from collections.abc import Iterator

import jax
import numpy as np

from spartax import checks
from spartax.data.dataset import Dataset
from spartax.records import Array


def batches(
    dataset: Dataset, batch_size: int, key: Array | None = None, *, epochs: int = 1, drop_last: bool = False
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Batches of a data set, in order or shuffled anew each epoch by `fold_in(key, epoch)`.

    Args:
      dataset: what to read.
      batch_size: rows of a batch.
      key: PRNG key of the shuffles; in stored order when left out.
      epochs: passes over the data.
      drop_last: leave out the shorter last batch of each epoch, so that every batch has the same shape.

    Returns:
      Iterator of `(x, y, index)`: float32 [B, H, W, C], int32 [B] and the rows of the data set, int32 [B].

    Raises:
      ValueError: `batch_size` or `epochs` is not a positive integer, or no batch is left.
    """
    checks.positive_int("batch_size", batch_size)
    checks.positive_int("epochs", epochs)
    size = len(dataset.y)
    if size == 0 or (drop_last and size < batch_size):
        raise ValueError(f"batch_size must leave at least one batch of {size} examples; got {batch_size!r}.")
    return _batches(dataset, batch_size, key, epochs, size - size % batch_size if drop_last else size)


def _batches(dataset: Dataset, batch_size: int, key: Array | None, epochs: int, stop: int) -> Iterator[tuple]:
    # Apart from `batches`, so that bad arguments fail at the call and not at the first batch.
    rows = np.arange(len(dataset.y), dtype=np.int32)
    for epoch in range(epochs):
        order = rows if key is None else np.asarray(jax.random.permutation(jax.random.fold_in(key, epoch), rows))
        for start in range(0, stop, batch_size):
            index = order[start : min(start + batch_size, stop)]
            yield dataset.x[index], dataset.y[index], index
