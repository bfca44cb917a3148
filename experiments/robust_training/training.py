"""How the networks are trained: a loss each, all else in common."""

import pathlib
from collections.abc import Callable

import flax.linen as nn
import jax
import optax
from jax.tree_util import Partial
from ml_collections import ConfigDict

from experiments.common.subject import first, initialized, training_mode
from spartax import attacks, data, measure, models, train
from spartax.records import ApplyFn, Array, Params
from spartax.train import Loss, Network

MOMENTUM, DECAY, RISE = 0.9, 5e-4, 0.3  # share of the steps in which the rate rises
HELD, WATCHED, WATCH_STEPS = 1000, 500, 10  # images set aside, and those looked at after each epoch

LOSSES: dict[str, Callable[[float], Loss]] = {
    "clean": lambda eps: train.clean(),
    "fgsm_rs": lambda eps: train.fgsm_rs(eps),
    "aaer": lambda eps: train.aaer(eps),
    "pgd7": lambda eps: train.pgd_at(attacks.pgd(eps, steps=7, step_size=eps / 4)),
}


def trained(
    config: ConfigDict, name: str, module: nn.Module, images: data.Dataset, folder: pathlib.Path
) -> tuple[data.Dataset, Params]:
    """The images that were trained on, and the weights with most of the others robust.

    The folder gets a checkpoint after every epoch, from which the same call goes on, and `NAME.training.jsonl`.
    """
    key = jax.random.key(config.seed)
    rest, held = data.hold_out(images, min(HELD, len(images.y) // 5), key)
    per_epoch = len(rest.y) // config.batch
    steps = per_epoch * config.epochs
    tx, apply = optimizer(config.rate, steps), models.eval_apply(module)
    step = train.make_step(augmented(LOSSES[config.loss](config.eps)), tx, apply, training_mode(module))
    decides = {value: config[value] for value in ("batch", "loss", "eps", "rate")}
    state, _ = train.fit(
        step,
        train.init_state(initialized(module, rest, config.seed), tx),
        data.batches(rest, config.batch, key, epochs=config.epochs, drop_last=True),
        key,
        validate=train.validation(_score(config.eps, apply, first(held, WATCHED)), every=per_epoch),
        keep=train.checkpoints(folder / name, every=per_epoch, config={**decides, "data": rest.name, "steps": steps}),
        logs=[train.json_lines(folder / f"{name}.training.jsonl")],
        total=steps,
        name=name,
    )
    return rest, state.best.variables


def _score(eps: float, apply: ApplyFn, held: data.Dataset) -> Callable[[Params], float]:
    """Share of held-out images that stay correct under PGD."""
    pgd = {"PGD": attacks.pgd(eps, steps=WATCH_STEPS)}

    def score(variables: Params) -> float:
        size = min(100, len(held.y))
        found = measure.robustness(pgd, Partial(apply, variables), held.x, held.y, jax.random.key(0), size)
        return float(found.worst.mean())

    return score


def augmented(loss: Loss) -> Loss:
    """The loss of shifted and mirrored images, drawn from its key, so that a resumed run draws the same."""
    change = data.augment()

    def of_changed(network: Network, key: Array, x: Array, y: Array) -> tuple[Array, dict]:
        own, rest = jax.random.split(key)
        return loss(network, rest, change(own, x), y)

    return of_changed


def optimizer(peak: float, steps: int) -> optax.GradientTransformation:
    """SGD with Nesterov momentum, weight decay, and a rate that rises and falls along straight lines."""
    turn = max(1, int(RISE * steps))
    rise, fall = optax.linear_schedule(0.0, peak, turn), optax.linear_schedule(peak, 0.0, max(1, steps - turn))
    rate = optax.join_schedules([rise, fall], [turn])
    return optax.chain(optax.add_decayed_weights(DECAY), optax.sgd(rate, MOMENTUM, nesterov=True))
