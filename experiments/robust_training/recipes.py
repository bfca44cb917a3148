"""How the networks are trained: a loss each, all else in common."""

from collections.abc import Callable

import jax
import optax

from spartax import attacks, data, train
from spartax.records import Array
from spartax.train import Loss, Network

MOMENTUM, DECAY, RISE = 0.9, 5e-4, 0.3  # share of the steps in which the rate rises

LOSSES: dict[str, Callable[[float], Loss]] = {
    "clean": lambda eps: train.clean(),
    "fgsm_rs": lambda eps: train.fgsm_rs(eps),
    "aaer": lambda eps: train.aaer(eps),
    "pgd7": lambda eps: train.pgd_at(attacks.pgd(eps, steps=7, step_size=eps / 4)),
}


def augmented(loss: Loss) -> Loss:
    """The loss of shifted and mirrored images, drawn from its key, so that a resumed run draws the same."""
    change = data.augment()

    def of_changed(network: Network, key: Array, x: Array, y: Array) -> tuple[Array, dict]:
        own, rest = jax.random.split(key)
        return loss(network, rest, change(own, x), y)

    return of_changed


def optimizer(peak: float, steps: int) -> optax.GradientTransformation:
    """SGD with Nesterov momentum, weight decay, and a rate that rises and falls along straight lines."""
    first = max(1, int(RISE * steps))
    rise, fall = optax.linear_schedule(0.0, peak, first), optax.linear_schedule(peak, 0.0, max(1, steps - first))
    rate = optax.join_schedules([rise, fall], [first])
    return optax.chain(optax.add_decayed_weights(DECAY), optax.sgd(rate, MOMENTUM, nesterov=True))
