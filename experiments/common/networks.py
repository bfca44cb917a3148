"""The networks of the benchmark by name: digits trained here, published ones, and narrower ones trained the same."""

import functools
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from ml_collections import ConfigDict

from experiments.common import results
from experiments.common.subject import (
    DIGITS_EPS,
    Subject,
    adversarially_trained,
    default_eps,
    first,
    fitting,
    initialized,
    load_weights,
    mesh_of,
    training_mode,
)
from spartax import checkpoint, checks, data, models
from spartax.records import Params

TRAINED_HERE = pathlib.Path(__file__).parents[1] / "robust_training" / "weights"
PUBLISHED = {  # files below data_dir, or where they are
    "resnet8": str(TRAINED_HERE / "cifar10_linf8_resnet8_aaer.safetensors"),
    "resnet8_pgd7": str(TRAINED_HERE / "cifar10_linf8_resnet8_pgd7.safetensors"),
    "resnet20_robust": str(TRAINED_HERE / "cifar10_linf8_resnet20_aaer.safetensors"),
    "resnet20": "cifar10_resnet20.safetensors",
    "resnet32": "cifar10_resnet32.safetensors",
    "resnet56": "cifar10_resnet56.safetensors",
    "cnn_a": "cifar10_linf_cnn_a_adv.safetensors",
    "resnet2b": "cifar10_linf2_resnet2b.safetensors",
}
WIDTHS = ("stem", "widths", "hidden")  # attributes of modules that count channels or units


def load(config: ConfigDict) -> Subject:
    """The dense network of a config, with its images.

    Raises:
      ValueError: an unknown name; data or weights that are missing or do not fit.
    """
    checks.one_of("--config.network", config.network, ("digits", *PUBLISHED))
    if config.network != "digits":
        return _published(config)
    module = models.CNN(tuple(config.widths), config.hidden)
    images, test = data.digits("train"), first(data.digits("test"), config.examples)
    eps = DIGITS_EPS if config.eps is None else config.eps
    images = first(images, config.training)
    subject = Subject("CNN", models.eval_apply(module), {}, test, eps, 16, images, module)
    return subject._replace(variables=trained(subject, config))


def _published(config: ConfigDict) -> Subject:
    if config.data_dir is None:
        raise ValueError(f"--config.network={config.network} needs --config.data_dir=DIR, a folder with CIFAR-10")
    file = config.weights or os.path.join(config.data_dir, "weights", PUBLISHED[config.network])
    images = max(config.calibration, config.training)
    return _read(file, config.data_dir, config.examples or 256, images, config.eps)


@functools.lru_cache(maxsize=1)  # so that runs of one process compile what they share once
def _read(file: str, data_dir: str, examples: int, images: int, eps: float | None) -> Subject:
    loaded = load_weights(pathlib.Path(file))
    test = data.load("cifar10", f"test[:{examples}]", data_dir)
    known = data.load("cifar10", f"train[:{images}]", data_dir)
    fitting(loaded, test, "cifar10")
    eps = default_eps(loaded.info, "cifar10") if eps is None else eps
    name = pathlib.Path(file).stem
    return Subject(name, loaded.apply, loaded.variables, test, eps, 255, known, loaded.module)


def trained(subject: Subject, config: ConfigDict) -> Params:
    """The module of `subject` after adversarial training."""
    assert subject.train is not None
    images, what = subject.train, [repr(subject.module), subject.train.name, len(subject.train.y)]

    def make(saved: pathlib.Path) -> Params:
        start = initialized(subject.module, images, config.seed)
        forward = training_mode(subject.module) if "batch_stats" in start else None
        options = {"train_apply": forward, "progress": False, "folder": saved / "stage0", "mesh": mesh_of(config)}
        return adversarially_trained(
            subject.apply_fn, start, images, subject.eps, config.epochs, config.seed, **options
        )

    return once(config, [*what, subject.eps, config.epochs, config.seed], make)


def once(config: ConfigDict, what: list[Any], make: Callable[[pathlib.Path], Params]) -> Params:
    """What `make` gives, which whoever comes first does for a folder of results; `what` is all it depends on.

    It is given a folder for checkpoints, which is removed when it is done.
    """
    name = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:12]
    folder = pathlib.Path(config.out) / "networks" / name
    with results.locked(pathlib.Path(config.out), f"train {name}", wait=True):
        if not (folder / "spec.json").exists():
            saved = pathlib.Path(config.out) / results.UNFINISHED / name
            checkpoint.save(folder, make(saved))
            shutil.rmtree(saved, ignore_errors=True)
        return checkpoint.restore(folder)


def narrower(subject: Subject, cost: Callable[[nn.Module], float], most: float) -> nn.Module:
    """The widest copy of a network whose cost is at most `most`: all widths scaled alike, found by bisection.

    Raises:
      ValueError: even the narrowest costs more.
    """
    low, high, best = 0.0, 1.0, None
    for _ in range(12):
        middle = (low + high) / 2
        module = scaled(subject.module, middle)
        low, high, best = (middle, high, module) if cost(module) <= most else (low, middle, best)
    if best is None:
        raise ValueError(
            f"no network narrow enough for {most:,.0f}; the narrowest costs {cost(scaled(subject.module, 0.0)):,.0f}"
        )
    return best


def scaled(module: nn.Module, factor: float) -> nn.Module:
    """A copy whose channels and hidden units are scaled; at least one of each is left."""
    scale = lambda width: max(1, round(factor * width))  # noqa: E731
    widths = {name: getattr(module, name) for name in WIDTHS if hasattr(module, name)}
    new: dict[str, Any] = {
        name: scale(w) if isinstance(w, int) else tuple(scale(x) for x in w) for name, w in widths.items()
    }
    return module.clone(**new)


def shapes(module: nn.Module, subject: Subject) -> Params:
    """Shapes of the variables of a module for the images of a subject."""
    image = jax.ShapeDtypeStruct((1, *subject.test.x.shape[1:]), subject.test.x.dtype)
    return jax.eval_shape(module.init, jax.random.key(0), image)
