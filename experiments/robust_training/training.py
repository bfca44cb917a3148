"""How the networks are trained: a loss each, all else in common."""

import functools
import pathlib
from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import optax
from jax.tree_util import Partial
from ml_collections import ConfigDict

from experiments.common.subject import first, gathered, initialized, mesh_of, training_mode
from spartax import attacks, data, measure, models, sharding, train
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
SINGLE_STEP = ("fgsm_rs", "aaer")  # may learn to mislead their one step


def trained(
    config: ConfigDict, name: str, module: nn.Module, images: data.Dataset, folder: pathlib.Path
) -> tuple[data.Dataset, Params]:
    """The images that were trained on, and the weights with most of the others robust.

    The folder gets a checkpoint after every epoch, from which the same call goes on, and `NAME.training.jsonl`: losses,
    scores, and of single-step training the alarm of `train.overfitting` on images that are trained on.
    """
    key = jax.random.key(config.seed)
    rest, held = data.hold_out(images, min(HELD, len(images.y) // 5), key)
    per_epoch = len(rest.y) // config.batch
    steps = per_epoch * config.epochs
    tx, apply = optimizer(config.rate, steps), models.eval_apply(module)
    step = train.make_step(augmented(LOSSES[config.loss](config.eps)), tx, apply, training_mode(module))
    decides = {value: config[value] for value in ("batch", "loss", "eps", "rate")}
    start, mesh = train.init_state(initialized(module, rest, config.seed), tx), mesh_of(config)
    state, _ = train.fit(
        step,
        start if mesh is None else sharding.shard_params(start, mesh),
        data.batches(rest, config.batch, key, epochs=config.epochs, drop_last=True),
        key,
        mesh=mesh,
        validate=train.validation(watched(config, apply, first(held, WATCHED), first(rest, WATCHED)), every=per_epoch),
        keep=train.checkpoints(folder / name, every=per_epoch, config={**decides, "data": rest.name, "steps": steps}),
        logs=[train.json_lines(folder / f"{name}.training.jsonl")],
        total=steps,
        name=name,
    )
    return rest, gathered(state.best.variables)


def watched(
    config: ConfigDict, apply: ApplyFn, held: data.Dataset, seen: data.Dataset
) -> Callable[[Params], Mapping[str, float]]:
    """Share of held-out images that stay correct under PGD; of single-step training the alarm too, on `seen`."""
    pgd, key = {"PGD": attacks.pgd(config.eps, steps=WATCH_STEPS)}, jax.random.key(0)

    def score(variables: Params) -> Mapping[str, float]:
        network = Partial(apply, variables)
        found = measure.robustness(pgd, network, held.x, held.y, key, min(100, len(held.y)))
        numbers = {"score": float(found.worst.mean())}
        if config.loss in SINGLE_STEP:
            numbers |= train.overfitting(network, key, seen.x, seen.y, config.eps, steps=WATCH_STEPS)._asdict()
        return numbers

    return score


def augmented(loss: Loss) -> Loss:
    """The loss of shifted and mirrored images, drawn from its key, so that a resumed run draws the same."""
    change = data.augment()

    @functools.wraps(loss)
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
