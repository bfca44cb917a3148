"""The network that is compressed: trained here on digits, or loaded with published weights."""

import pathlib

from experiments.common.subject import (
    DIGITS_EPS,
    Subject,
    adversarially_trained,
    default_eps,
    first,
    fitting,
    initialized,
    load_weights,
)
from experiments.quickstart.options import Options
from spartax import data, models

__all__ = ["DIGITS_EPS", "Subject", "default_eps", "published", "trained"]


def trained(options: Options) -> Subject:
    """A small CNN after PGD adversarial training on digits, with a progress bar."""
    eps = DIGITS_EPS if options.eps is None else options.eps
    images, module = data.digits("train"), models.CNN((8,), hidden=32) if options.quick else models.CNN()
    apply_fn, start = models.eval_apply(module), initialized(module, images, options.seed)
    variables = adversarially_trained(apply_fn, start, images, eps, options.epochs, options.seed)
    return Subject("CNN", apply_fn, variables, first(data.digits("test"), options.examples), eps, 16)


def published(options: Options, weights: pathlib.Path) -> Subject:
    """A network with published weights.

    Raises:
      ValueError: data or weights that are not there, cannot be read or do not fit each other.
    """
    loaded = load_weights(weights)
    split = "test" if options.examples is None else f"test[:{options.examples}]"
    test = data.load(options.data, split, options.data_dir)
    fitting(loaded, test, options.data)
    eps = options.eps if options.eps is not None else default_eps(loaded.info, options.data)
    return Subject(weights.stem, loaded.apply, loaded.variables, test, eps, 255)
