"""One door to all data sets, by name."""

import os

from spartax import checks
from spartax.data import image_sets
from spartax.data.dataset import Dataset
from spartax.data.digits import digits

_TFDS = {
    factory.__name__: factory
    for factory in (
        image_sets.cifar10,
        image_sets.cifar100,
        image_sets.fashion_mnist,
        image_sets.mnist,
        image_sets.svhn,
    )
}


def load(name: str, split: str, data_dir: str | os.PathLike | None = None, count: int | None = None) -> Dataset:
    """Load a data set by the name of its factory.

    Args:
      name: `"digits"`, `"cifar10"`, `"cifar100"`, `"svhn"`, `"mnist"` or `"fashion_mnist"`.
      split: what the factory accepts.
      data_dir: folder of prepared TFDS sets; `digits` is embedded and looks at none.
      count: read the first so many examples of the split alone; all when left out, or where there are fewer.

    Returns:
      `Dataset`.

    Raises:
      ValueError: unknown `name` or `split`, a `count` that is no positive integer, or the set is not in `data_dir`.
    """
    checks.one_of("name", name, ("digits", *_TFDS))
    if name != "digits":
        return _TFDS[name](split, data_dir, count)
    if count is not None:
        checks.positive_int("count", count)
    found = digits(split)
    return found._replace(x=found.x[:count], y=found.y[:count])
