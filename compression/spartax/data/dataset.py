"""The record every data set is returned as."""

from typing import NamedTuple

import numpy as np


class Dataset(NamedTuple):
    """Labeled images in memory.

    Attributes:
      x: images, float32 [N, H, W, C] in [0, 1].
      y: labels, int32 [N] in [0, classes).
      name: what it is, `"cifar10/test"`.
      classes: number of labels.
      label_names: the name of each label.
    """

    x: np.ndarray
    y: np.ndarray
    name: str
    classes: int
    label_names: tuple[str, ...]
