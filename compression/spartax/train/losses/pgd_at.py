"""`pgd_at`: cross-entropy on attacked images."""

import jax

from spartax.records import Array, Attack
from spartax.train.losses.clean import clean
from spartax.train.network import Loss, Network


def pgd_at(attack: Attack) -> Loss:
    """Adversarial training: `mean_i CE(f(x_i'), y_i)`, `x' = attack(f, x, y)` against the network as it is now.

    The attack sees the network in evaluation mode and no gradient goes through it. See Madry et al., "Towards deep
    learning models resistant to adversarial attacks" (arXiv:1706.06083).

    Args:
      attack: usually `attacks.pgd(eps, steps=7)`; its cost is `steps` extra forward and backward passes.

    Returns:
      `loss(network, key, x, y) -> (value, updates)`, see `train.Loss`.
    """
    plain = clean()

    def loss(network: Network, key: Array, x: Array, y: Array) -> tuple[Array, dict]:
        attacked = jax.lax.stop_gradient(attack(key, network.logits, x, y))
        return plain(network, key, attacked, y)

    return loss
