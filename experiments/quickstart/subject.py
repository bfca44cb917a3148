"""The network that is compressed: trained here on digits, or loaded with published weights."""

import fractions
import pathlib
import re
from typing import Any, NamedTuple

import jax
import optax
import safetensors

from experiments.quickstart.options import Options
from spartax import attacks, data, models, train
from spartax.records import ApplyFn, Params

DIGITS_EPS = 0.1
BATCH, LEARNING_RATE, ATTACK_STEPS = 64, 2e-3, 7


class Subject(NamedTuple):
    """A network and the images it is judged on.

    Attributes:
      name: of the network.
      apply_fn: `apply_fn(variables, x) -> logits`.
      variables: its weights.
      test: images and labels.
      eps: linf radius of the threat, in the pixel range [0, 1].
      levels: steps of the stored images above black: 16 for digits, 255 for bytes.
    """

    name: str
    apply_fn: ApplyFn
    variables: Params
    test: data.Dataset
    eps: float
    levels: int


def _first(dataset: data.Dataset, count: int | None) -> data.Dataset:
    return dataset._replace(x=dataset.x[:count], y=dataset.y[:count])


def trained(options: Options) -> Subject:
    """A small CNN after PGD adversarial training on digits, with a progress bar."""
    eps = DIGITS_EPS if options.eps is None else options.eps
    images, module = data.digits("train"), models.CNN((8,), hidden=32) if options.quick else models.CNN()
    key = jax.random.key(options.seed, impl="rbg")  # compiles in a third of the time of the default generator
    variables = jax.jit(module.init)(key, images.x[:1])
    steps = len(images.y) // BATCH * options.epochs
    tx = optax.adam(optax.schedules.cosine_decay_schedule(LEARNING_RATE, steps))
    apply_fn = models.eval_apply(module)
    step = train.make_step(train.pgd_at(attacks.pgd(eps, steps=ATTACK_STEPS)), tx, apply_fn)
    batches = data.batches(images, BATCH, key, epochs=options.epochs, drop_last=True)
    name = f"adversarial training, linf eps {eps:.3g}"
    state = train.init_state(variables, tx)
    state, _ = train.fit(step, state, batches, jax.random.key(options.seed), total=steps, name=name)
    return Subject("CNN", apply_fn, state.variables, _first(data.digits("test"), options.examples), eps, 16)


def published(options: Options, weights: pathlib.Path) -> Subject:
    """A network with published weights.

    Raises:
      ValueError: data or weights that are not there, cannot be read or do not fit each other.
    """
    try:
        loaded = models.load(weights)
    except safetensors.SafetensorError as error:
        raise ValueError(f"--weights {weights} is no safetensors file: {error}") from error
    split = "test" if options.examples is None else f"test[:{options.examples}]"
    test = data.load(options.data, split, options.data_dir)
    if loaded.info["input_shape"] != test.x.shape[1:]:
        shapes = " but ".join(str(tuple(s)) for s in (loaded.info["input_shape"], test.x.shape[1:]))
        raise ValueError(
            f"--weights and --data do not fit: the network reads {shapes} are the images of {options.data}"
        )
    eps = options.eps if options.eps is not None else default_eps(loaded.info, options.data)
    return Subject(weights.stem, loaded.apply, loaded.variables, test, eps, 255)


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
