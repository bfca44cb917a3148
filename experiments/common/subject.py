"""The network that is compressed: trained adversarially here, or loaded with published weights."""

import fractions
import functools
import hashlib
import itertools
import json
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import safetensors
from jax.sharding import Mesh
from ml_collections import ConfigDict

import spartax as sx
from spartax import attacks, data, models, sharding, train
from spartax.records import ApplyFn, Params, Transform
from spartax.train import Loss, TrainApply
from spartax.train.step import Step

BATCH, LEARNING_RATE, ATTACK_STEPS = 64, 2e-3, 7
DIGITS_EPS = 0.1  # linf radius for the embedded digits
SAVED_IMAGES = 10_000  # between two checkpoints of training


class Subject(NamedTuple):
    """A network and the images it is judged on.

    Attributes:
      name: of the network.
      apply_fn: `apply_fn(variables, x) -> logits`.
      variables: its weights.
      test: images and labels.
      eps: linf radius of the threat, in the pixel range [0, 1].
      levels: steps of the stored images above black: 16 for digits, 255 for bytes.
      train: images of calibration and training, where they were asked for.
      module: the Flax module; None where it is not known.
      stages: folders for the checkpoints of the trainings of a run, in their order, from which the same run goes on;
        None for none.
      mesh: of the devices that train and attack it; None for the default device.
    """

    name: str
    apply_fn: ApplyFn
    variables: Params
    test: data.Dataset
    eps: float
    levels: int
    train: data.Dataset | None = None
    module: Any = None
    stages: Iterator[pathlib.Path] | None = None
    mesh: Mesh | None = None

    @property
    def train_apply(self) -> TrainApply | None:
        """The network in training mode, where it has batch statistics."""
        if self.module is None or "batch_stats" not in self.variables:
            return None
        return training_mode(self.module)


@functools.lru_cache(maxsize=8)  # one function for one module is compiled once
def training_mode(module: Any) -> TrainApply:
    """`(variables, x) -> (logits, updated statistics)`."""
    return lambda variables, x: module.apply(variables, x, train=True, mutable=["batch_stats"])


def first(dataset: data.Dataset, count: int | None) -> data.Dataset:
    """The first images of a set."""
    return dataset._replace(x=dataset.x[:count], y=dataset.y[:count])


def adversarially_trained(
    apply_fn: ApplyFn,
    variables: Params,
    images: data.Dataset,
    eps: float,
    epochs: int,
    seed: int,
    *,
    train_apply: TrainApply | None = None,
    rate: float = LEARNING_RATE,
    keep: Callable[[str, Any], bool] | None = None,
    transform: Transform | None = None,
    optimizer: Callable[[optax.Schedule], optax.GradientTransformation] = optax.adam,
    around: Callable[[Step], Step] = lambda step: step,
    loss: Loss | None = None,
    progress: bool = True,
    folder: pathlib.Path | None = None,
    mesh: Mesh | None = None,
) -> Params:
    """Adversarial training with Adam and a cosine decay, without attacks at `eps` 0; compressed leaves keep masks.

    Args:
      apply_fn: `(variables, x) -> logits`.
      variables: where it starts.
      images: what is trained on.
      eps: linf radius of the attack in training.
      epochs: passes over the images.
      seed: of their order and of the attack.
      train_apply: the network in training mode, where it has batch statistics.
      rate: the highest learning rate.
      keep: which arrays are trained; all when left out.
      transform: compression inside training, such as `quantize.reste(steps)`; `apply_fn` takes its leaves.
      optimizer: of the cosine decay.
      around: what makes one step of several, such as `train.switching`.
      loss: PGD adversarial training when left out.
      progress: whether a bar is shown.
      folder: of checkpoints, from which an interrupted training goes on and a finished one is read; None for none.
      mesh: of devices, over whose rows batches are split and over whose columns large weights are; None for none.
    """
    size = min(BATCH, len(images.y))
    steps = steps_of(images, epochs)
    tx = optimizer(optax.schedules.cosine_decay_schedule(rate, steps))
    loss, method, refresh, saved = loss or pgd_training(eps), None, None, None
    if folder is not None:
        saved = _checkpoints(folder, variables, images=images.name, eps=eps, epochs=epochs, seed=seed, rate=rate)
    if transform is not None:
        variables, method = train.begin(transform, apply_fn, variables, images.x[:size], jax.random.key(seed))
        refresh = train.make_refresh(transform, loss, tx, apply_fn, train_apply)
    step = train.make_step(loss, tx, apply_fn, train_apply)
    batches = data.batches(images, size, jax.random.key(seed, impl="rbg"), epochs=epochs, drop_last=True)
    state, name = train.init_state(variables, tx, keep, method), f"training, linf eps {eps:.3g}"
    options = {"total": steps, "name": name, "progress": progress, "keep": saved, "mesh": mesh}
    start = state if mesh is None else sharding.shard_params(state, mesh)
    state, _ = train.fit(around(step), start, batches, jax.random.key(seed), refresh=refresh, **options)
    return state.variables if mesh is None else gathered(state.variables)


def mesh_of(config: ConfigDict) -> Mesh | None:
    """The devices that `--config.mesh` asks for.

    Raises:
      ValueError: no pair, or not the number of devices there are.
    """
    if config.mesh is None:
        return None
    if len(config.mesh) != 2:
        raise ValueError(f"--config.mesh must be (rows, columns) of devices; got {config.mesh!r}")
    try:
        return sharding.mesh(*config.mesh)
    except ValueError as error:
        raise ValueError(f"--config.mesh={config.mesh}: {error}") from error


def gathered(variables: Params) -> Params:
    """Weights that lie on a mesh, on the default device."""
    return jax.tree.map(jnp.asarray, jax.device_get(variables))


def stages(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Folders for the trainings of one run."""
    return (folder / f"stage{number}" for number in itertools.count())


def _checkpoints(folder: pathlib.Path, variables: Params, **decides: Any) -> train.Checkpoints:
    """In a folder that is known by where training starts too, so that changed code starts again."""
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode())
    for x in jax.tree.leaves(variables):
        digest.update(np.asarray(x).tobytes())
    name = f"{folder.name}_{digest.hexdigest()[:12]}"
    return train.checkpoints(folder.with_name(name), every=-(-SAVED_IMAGES // BATCH), config=decides)


def pgd_training(eps: float) -> Loss:
    """The loss of the networks trained here: PGD-7, without attacks at `eps` 0."""
    return train.pgd_at(attacks.pgd(eps, steps=ATTACK_STEPS)) if eps else train.clean()


def steps_of(images: data.Dataset, epochs: int) -> int:
    """Steps of `adversarially_trained`."""
    return len(images.y) // min(BATCH, len(images.y)) * epochs


def initialized(module: nn.Module, images: data.Dataset, seed: int) -> Params:
    """Variables before training."""
    key = jax.random.key(seed, impl="rbg")  # compiles in a third of the time of the default generator
    return jax.jit(module.init)(key, images.x[:1])


def load_weights(weights: pathlib.Path) -> models.Loaded:
    """A published network.

    Raises:
      ValueError: no such file, or one that is not what it should be.
    """
    if not weights.is_file():
        raise ValueError(f"--weights: no file {weights}")
    try:
        return models.load(weights)
    except safetensors.SafetensorError as error:
        raise ValueError(f"--weights {weights} is no safetensors file: {error}") from error


def fitting(loaded: models.Loaded, test: data.Dataset, name: str) -> None:
    """The images must be of the shape that the network reads."""
    if loaded.info["input_shape"] != test.x.shape[1:]:
        shapes = " but ".join(str(tuple(s)) for s in (loaded.info["input_shape"], test.x.shape[1:]))
        raise ValueError(f"--weights and --data do not fit: the network reads {shapes} are the images of {name}")


def default_eps(info: dict[str, Any], name: str) -> float:
    """The radius a network was trained for, read off its file; else the usual one of the data set.

    The file says so in `training`, as "adversarial, Linf 2/255"; a network trained for CIFAR-10 without a number gets
    2/255, one that was not trained for robustness 8/255 on CIFAR-10 and 0.3 on MNIST.
    """
    training = info.get("training", "")
    found = re.search(r"linf\s*([\d./]+)", training, re.IGNORECASE)
    if found:
        return float(fractions.Fraction(found.group(1)))
    if name == "cifar10":
        return 2 / 255 if "adversarial" in training else 8 / 255
    return 0.3


def tuned(
    subject: Subject,
    variables: Params,
    epochs: int,
    seed: int,
    rate: float,
    transform: Transform | None = None,
    keep: Callable[[str, Any], bool] | None = None,
    **others: Any,
) -> Params:
    """A compressed network after fine-tuning, as `adversarially_trained`; only `transform` changes the tree.

    `others` are further options of `adversarially_trained`.
    """
    assert subject.train is not None
    forward = None if subject.train_apply is None else sx.compressed(subject.train_apply)
    apply = sx.compressed(subject.apply_fn)
    given: dict[str, Any] = {"train_apply": forward, "rate": rate, "transform": transform, "keep": keep}
    given |= {"folder": None if subject.stages is None else next(subject.stages), "mesh": subject.mesh}
    return adversarially_trained(
        apply, variables, subject.train, subject.eps, epochs, seed, progress=False, **given, **others
    )
