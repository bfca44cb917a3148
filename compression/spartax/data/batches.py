"""Deterministic batches."""

import dataclasses
import functools
from collections.abc import Iterator

import jax
import numpy as np

from spartax import checks
from spartax.data.dataset import Dataset
from spartax.records import Array

Batch = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Batches:
    """The batches of all epochs as a sequence, made when they are asked for: `len`, iteration, and `batches[number]`.

    Batch `number` is a function of the key and the number alone, so that an interrupted training goes on in the middle
    of an epoch without reading what it has seen.

    Attributes:
      dataset: what is read.
      batch_size: rows of a batch.
      key: PRNG key of the shuffles, or None.
      epochs: passes over the data.
      stop: rows of an epoch.
    """

    dataset: Dataset
    batch_size: int
    key: Array | None
    epochs: int
    stop: int

    def __len__(self) -> int:
        return self.epochs * self._each

    def __getitem__(self, number: int) -> Batch:
        if not 0 <= number < len(self):
            raise IndexError(f"there are {len(self)} batches, numbered from 0; got {number}.")
        epoch, turn = divmod(number, self._each)
        start = turn * self.batch_size
        index = self._order(epoch)[start : min(start + self.batch_size, self.stop)]
        return self.dataset.x[index], self.dataset.y[index], index

    def __iter__(self) -> Iterator[Batch]:
        return (self[number] for number in range(len(self)))

    @property
    def _each(self) -> int:
        """Batches of an epoch."""
        return -(-self.stop // self.batch_size)

    @functools.cached_property
    def _order(self):
        """Epoch -> its order of the rows; the last one is remembered."""
        rows = np.arange(len(self.dataset.y), dtype=np.int32)

        @functools.lru_cache(maxsize=1)
        def order(epoch: int) -> np.ndarray:
            if self.key is None:
                return rows
            return np.asarray(jax.random.permutation(jax.random.fold_in(self.key, epoch), rows))

        return order


def batches(
    dataset: Dataset, batch_size: int, key: Array | None = None, *, epochs: int = 1, drop_last: bool = False
) -> Batches:
    """Batches of a data set, in order or shuffled anew each epoch by `fold_in(key, epoch)`.

    Args:
      dataset: what to read.
      batch_size: rows of a batch.
      key: PRNG key of the shuffles; in stored order when left out.
      epochs: passes over the data.
      drop_last: leave out the shorter last batch of each epoch, so that every batch has the same shape.

    Returns:
      Sequence of `(x, y, index)`: float32 [B, H, W, C], int32 [B] and the rows of the data set, int32 [B].

    Raises:
      ValueError: `batch_size` or `epochs` is not a positive integer, or no batch is left.
    """
    checks.positive_int("batch_size", batch_size)
    checks.positive_int("epochs", epochs)
    size = len(dataset.y)
    if size == 0 or (drop_last and size < batch_size):
        raise ValueError(f"batch_size must leave at least one batch of {size} examples; got {batch_size!r}.")
    return Batches(dataset, batch_size, key, epochs, size - size % batch_size if drop_last else size)
