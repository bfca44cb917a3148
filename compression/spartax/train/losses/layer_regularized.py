"""`layer_regularized`: adversarial training that holds the activations of the most vulnerable layers."""

import math
from collections.abc import Mapping

from spartax import checks
from spartax.records import Array, Attack
from spartax.train.attacked import attacked
from spartax.train.losses.clean import clean
from spartax.train.network import Loss, Network, attacking
from spartax.train.sustainability import Activations, relative_change


def layer_regularized(attack: Attack, activations: Activations, strengths: Mapping[str, float]) -> Loss:
    """`mean CE(f(x'), y) + sum_l strength_l mean_i |phi_l(x_i) - phi_l(x_i')| / |phi_l(x_i)|`, `x' = attack(f, x, y)`.

    Measure a trained network with `train.sustainability`, choose layers with `train.most_vulnerable`, train again with
    a strength for each: `dict.fromkeys(layers, 0.5)`. Examples for which a layer is silent before the attack are left
    out of its mean, as there. See Khalooei, Homayounpour and Amirmazlaghani, Layer-wise
    Regularized Adversarial Training using Layers Sustainability Analysis framework (arXiv 2202.02626).

    Args:
      attack: such as `attacks.pgd(8 / 255, steps=10)`.
      activations: `(variables, x) -> {name: phi [B, ...]}` (`train.sustainability`).
      strengths: name -> weight of the layer, 0 or more.

    Returns:
      `loss(network, key, x, y) -> (value, updates)`, see `train.Loss`.

    Raises:
      ValueError: no layer, a strength out of its range; at use, a layer that `activations` does not give.
    """
    if not strengths:
        raise ValueError("strengths must hold at least one layer; got none.")
    for strength in strengths.values():
        checks.in_range("strengths", strength, 0.0, math.inf, open_high=True)
    plain = clean()

    @attacking
    def loss(network: Network, key: Array, x: Array, y: Array) -> tuple[Array, dict]:
        moved = attacked(attack, network, key, x, y)
        value, updates = plain(network, key, moved, y)
        before, after = activations(network.variables, x), activations(network.variables, moved)
        for name, strength in strengths.items():
            checks.one_of("strengths", name, list(before))
            value += strength * relative_change(before[name], after[name])
        return value, updates

    return loss
