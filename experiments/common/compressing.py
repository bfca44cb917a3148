"""From dense weights to those that are judged: compressed on evidence, batch statistics refreshed, fine-tuned."""

from typing import Any

import jax
from ml_collections import ConfigDict

import spartax as sx
from experiments.common import measuring
from experiments.common.subject import Subject, first, tuned
from spartax import attacks, data, train, tree
from spartax.arrays import dense
from spartax.records import Params, Rule, Transform


def batches(config: ConfigDict, subject: Subject) -> list[tuple[Any, Any]]:
    """The training images of the evidence and of batch statistics, with their labels."""
    assert subject.train is not None
    images = first(subject.train, config.calibration)
    return [(x, y) for x, y, _ in data.batches(images, min(measuring.BATCH, len(images.y)), drop_last=True)]


def compressed(config: ConfigDict, subject: Subject, *transforms: Transform, rule: Rule | None = None) -> Params:
    """The weights after these transforms (those that `rule` takes), with nothing done about the rest of the network."""
    given = {"batches": batches(config, subject), "loss": attacks.losses.cross_entropy}
    key = jax.random.key(config.seed)
    return sx.compress(subject.apply_fn, subject.variables, *transforms, key=key, rule=rule, **given).params


def scores_and_norms(params: Params) -> Rule:
    """What is trained while weights and biases are frozen: learnt scores, and norms, the modules that have a scale."""
    parts = lambda path: path.rpartition("/")  # noqa: E731
    norms = {parts(path)[0] for path in tree.weights(params) if parts(path)[2] == "scale"}
    return lambda path, array: parts(path)[2] == "scores" or parts(path)[0] in norms


def refreshed(config: ConfigDict, subject: Subject, params: Params) -> Params:
    """With batch statistics of the compressed network, where it has any."""
    if subject.train_apply is None:
        return params
    plain = train.reestimate_batch_stats(subject.train_apply, jax.jit(dense)(params), batches(config, subject))
    return {**params, "batch_stats": plain["batch_stats"]}


def repaired(config: ConfigDict, subject: Subject, params: Params) -> Params:
    """Refreshed, and fine-tuned for `tune_epochs`."""
    params = refreshed(config, subject, params)
    return tuned(subject, params, config.tune_epochs, config.seed, config.tune_rate) if config.tune_epochs else params
