"""A part of the training data that is set aside."""

import jax
import numpy as np

from spartax import checks
from spartax.data.dataset import Dataset
from spartax.records import Array


def hold_out(dataset: Dataset, count: int, key: Array) -> tuple[Dataset, Dataset]:
    """`(rest, held)`: `count` random examples set aside for validation, so that no decision looks at the test set.

    Both keep the stored order, share no example and together are the data set.

    Args:
      dataset: the training data.
      count: examples to hold out, from 1 to one less than there are.
      key: PRNG key.

    Raises:
      ValueError: `count` leaves one of the two empty.
    """
    checks.positive_int("count", count)
    if count >= len(dataset.y):
        raise ValueError(f"count must be below the {len(dataset.y)} examples of {dataset.name}; got {count!r}.")
    order = np.asarray(jax.random.permutation(key, len(dataset.y)))
    parts = (("rest", np.sort(order[count:])), ("held out", np.sort(order[:count])))
    rest, held = (
        dataset._replace(x=dataset.x[rows], y=dataset.y[rows], name=f"{dataset.name}, {name}") for name, rows in parts
    )
    return rest, held
