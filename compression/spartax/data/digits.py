"""The embedded default: handwritten digits that come with scikit-learn, so nothing is downloaded."""

from typing import Any

import numpy as np
from sklearn import datasets

from spartax import checks
from spartax.data.dataset import Dataset

_TENTHS = {"train": (0, 7), "val": (7, 8), "test": (8, 10)}


def digits(split: str = "train") -> Dataset:
    """1,797 real handwritten digits of 8x8 gray pixels: pixel counts 0 to 16 divided by 16.

    The split is fixed and stratified: the examples of each digit are shuffled once (seed 0) and cut at 7 and 8 tenths,
    which gives 1,253 training, 180 validation and 364 test images. See Kaynak (1995); UCI "Optical recognition of
    handwritten digits", test part.

    Args:
      split: `"train"`, `"val"`, `"test"`, or `"all"` in the original order.

    Returns:
      `Dataset` with `x` float32 [N, 8, 8, 1] in [0, 1] and 10 classes.

    Raises:
      ValueError: unknown `split`.
    """
    checks.one_of("split", split, (*_TENTHS, "all"))
    stored: Any = datasets.load_digits()
    y = stored.target
    x = (stored.data / 16.0).astype(np.float32).reshape(-1, 8, 8, 1)
    rows = np.arange(len(y)) if split == "all" else _rows(y, *_TENTHS[split])
    return Dataset(x[rows], y[rows].astype(np.int32), f"digits/{split}", 10, tuple("0123456789"))


def _rows(y: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Sorted row numbers of the tenths `start` to `stop` of each class."""
    # RandomState, not default_rng: NumPy promises that its stream never changes, and so neither does the split.
    random = np.random.RandomState(0)
    parts = []
    for label in range(10):
        rows = random.permutation(np.flatnonzero(y == label))
        parts.append(rows[len(rows) * start // 10 : len(rows) * stop // 10])
    return np.sort(np.concatenate(parts))
