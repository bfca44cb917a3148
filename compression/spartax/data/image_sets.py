"""Image sets read from TFDS folders as random-access data sources, without TensorFlow."""

import itertools
import os
import pathlib
from typing import Any

import numpy as np

from spartax import checks
from spartax.data.dataset import Dataset


def tfds_images(name: str, split: str, data_dir: str | os.PathLike | None = None, count: int | None = None) -> Dataset:
    """Read a prepared TFDS image-classification set into memory.

    Args:
      name: the TFDS name, which is also the folder's, `"cifar10"`.
      split: a TFDS split, `"train"`, `"test"`, `"train[:1000]"`, `"train[45000:]+test"` ...
      data_dir: the folder that holds `<name>/<version>/`; by default the environment variable `TFDS_DATA_DIR`, else
        `~/tensorflow_datasets`.
      count: read the first so many examples of the split alone; all when left out, or where there are fewer.

    Returns:
      `Dataset` with `x` float32 [N, H, W, C], the stored bytes divided by 255.

    Raises:
      ValueError: the set is not prepared there in a random-access format, `split` is unknown, or `count` is no
        positive integer.
    """
    if count is not None:
        checks.positive_int("count", count)
    source = _source(name, split, data_dir)
    height, width, channels = source.dataset_info.features["image"].shape
    label = source.dataset_info.features["label"]
    size = len(source) if count is None else min(count, len(source))
    x = np.empty((size, height, width, channels), np.float32)
    y = np.empty(size, np.int32)
    for row, example in enumerate(itertools.islice(source, size)):  # each is decoded when it is reached
        np.divide(example["image"], np.float32(255), out=x[row], dtype=np.float32)
        y[row] = example["label"]
    return Dataset(x, y, f"{name}/{split}", label.num_classes, tuple(label.names))


def cifar10(split: str, data_dir: str | os.PathLike | None = None, count: int | None = None) -> Dataset:
    """CIFAR-10: 50,000 training and 10,000 test images 32x32x3, 10 classes. Krizhevsky (2009); see `tfds_images`."""
    return tfds_images("cifar10", split, data_dir, count)


def cifar100(split: str, data_dir: str | os.PathLike | None = None, count: int | None = None) -> Dataset:
    """CIFAR-100: 50,000 training and 10,000 test images 32x32x3, 100 classes. Krizhevsky (2009); see `tfds_images`."""
    return tfds_images("cifar100", split, data_dir, count)


def svhn(split: str, data_dir: str | os.PathLike | None = None, count: int | None = None) -> Dataset:
    """SVHN, cropped digits: 73,257 training and 26,032 test images 32x32x3. Netzer et al. (2011); see `tfds_images`."""
    return tfds_images("svhn_cropped", split, data_dir, count)


def mnist(split: str, data_dir: str | os.PathLike | None = None, count: int | None = None) -> Dataset:
    """MNIST: 60,000 training and 10,000 test images 28x28x1. LeCun et al. (1998); see `tfds_images`."""
    return tfds_images("mnist", split, data_dir, count)


def fashion_mnist(split: str, data_dir: str | os.PathLike | None = None, count: int | None = None) -> Dataset:
    """Fashion-MNIST: 60,000 training and 10,000 test images 28x28x1 (arXiv:1708.07747); see `tfds_images`."""
    return tfds_images("fashion_mnist", split, data_dir, count)


def _source(name: str, split: str, data_dir: str | os.PathLike | None) -> Any:
    """The data source of the newest prepared version."""
    import tensorflow_datasets as tfds  # slow to import and not needed for the embedded set

    root = pathlib.Path(data_dir or os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()
    versions = [folder.parent for folder in (root / name).glob("*/dataset_info.json")]
    how = (
        f"prepare it once with tfds.builder({name!r}, data_dir={str(root)!r}, file_format='array_record')"
        ".download_and_prepare() (this, unlike reading, needs TensorFlow), or pass the right data_dir"
    )
    if not versions:
        raise ValueError(f"data_dir has no prepared {name!r}: looked for {root / name}/<version>/; {how}.")
    newest = max(versions, key=lambda folder: tfds.core.Version(folder.name))
    try:
        builder: Any = tfds.builder_from_directory(newest)
        return builder.as_data_source(split)
    except NotImplementedError as error:
        raise ValueError(f"data_dir has {newest} in a format without random access; {how}.") from error
