"""The networks that are pruned, and what is known about them."""

import pathlib
from collections.abc import Collection
from typing import Any, NamedTuple

import jax
import optax

import spartax as sx
from experiments.pruning.options import Options
from experiments.quickstart import subject as quickstart
from experiments.quickstart.options import parse as quickstart_options
from spartax import data, models
from spartax.records import ApplyFn, Array, Evidence, Params, Transform
from spartax.train import TrainApply

BATCH = 128


class Subject(NamedTuple):
    """A network with its data.

    Attributes:
      name: as shown.
      apply: jitted `apply(variables, x) -> logits` of dense weights; all rows share it.
      train_apply: the same in training mode, for networks with batch statistics.
      variables: its weights.
      calibration: images of the evidence.
      train: images that are trained on.
      test: images that it is judged on.
      eps: linf radius it was trained for.
      levels: steps of the stored images above black.
    """

    name: str
    apply: ApplyFn
    train_apply: TrainApply | None
    variables: Params
    calibration: data.Dataset
    train: data.Dataset
    test: data.Dataset
    eps: float
    levels: int = 255

    @property
    def batches(self) -> list[tuple[Any, Any]]:
        """The calibration images with their labels."""
        size = min(BATCH, len(self.calibration.y))
        return [(x, y) for x, y, _ in data.batches(self.calibration, size, drop_last=True)]


def subjects(options: Options) -> list[Subject]:
    """Every network that was asked for; with `--quick` a small one, trained for a moment on digits."""
    return [_trained(options)] if options.quick else [_published(options, file) for file in options.weights]


def _published(options: Options, file: pathlib.Path) -> Subject:
    loaded = models.load(file)
    test = data.load("cifar10", f"test[:{options.examples}]", options.data_dir)
    needed = max(options.calibration, options.training if options.robust else 0)
    train = data.load("cifar10", f"train[:{needed}]", options.data_dir)
    if loaded.info["input_shape"] != test.x.shape[1:]:
        raise ValueError(f"--weights {file}: the network reads {loaded.info['input_shape']}, not {test.x.shape[1:]}")
    train_apply = None
    if "batch_stats" in loaded.variables:
        train_apply = jax.jit(lambda v, x: loaded.module.apply(v, x, train=True, mutable=["batch_stats"]))
    eps = quickstart.default_eps(loaded.info, "cifar10")
    return Subject(
        file.stem,
        jax.jit(loaded.apply),
        train_apply,
        loaded.variables,
        _first(train, options.calibration),
        train,
        test,
        eps,
    )


def _trained(options: Options) -> Subject:
    small = quickstart.trained(quickstart_options(["--quick", "--examples", str(options.examples)]))
    images = data.digits("train")
    known = _first(images, options.calibration), _first(images, options.training)
    return Subject(
        small.name, jax.jit(small.apply_fn), None, small.variables, *known, small.test, small.eps, small.levels
    )


def _first(images: data.Dataset, count: int) -> data.Dataset:
    return images._replace(x=images.x[:count], y=images.y[:count])


def evidence(subject: Subject, needs: Collection[str], key: Array) -> Evidence:
    """What these methods need to know, measured once for all rows."""
    found: list[Evidence] = []

    def init(params: Params, given: Evidence) -> tuple[Params, None]:
        found.append(given)
        return params, None

    look = Transform(frozenset(needs), init, lambda params, state, given: (params, state, {}))
    sx.compress(subject.apply, subject.variables, look, batches=subject.batches, loss=cross_entropy, key=key)
    return found[0]


def cross_entropy(logits: Array, y: Array) -> Array:
    """One loss for each example."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, y)
