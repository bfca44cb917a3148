"""`pgd_at`: cross-entropy on attacked images."""

from spartax.records import Array, Attack
from spartax.train.attacked import attacked
from spartax.train.losses.clean import clean
from spartax.train.network import Loss, Network, attacking


def pgd_at(attack: Attack, base: Loss | None = None) -> Loss:
    """Adversarial training: `mean_i CE(f(x_i'), y_i)`, `x' = attack(f, x, y)` against the network as it is now.

    The attack sees the network in evaluation mode and no gradient goes through it. See Madry et al., "Towards deep
    learning models resistant to adversarial attacks" (arXiv:1706.06083).

    Args:
      attack: usually `attacks.pgd(eps, steps=7)`; its cost is `steps` extra forward and backward passes.
      base: the loss on the attacked images, such as `train.label_smoothing()`; `train.clean()` when left out.

    Returns:
      `loss(network, key, x, y) -> (value, updates)`, see `train.Loss`.
    """
    inner = clean() if base is None else base

    @attacking
    def loss(network: Network, key: Array, x: Array, y: Array) -> tuple[Array, dict]:
        return inner(network, key, attacked(attack, network, key, x, y), y)

    return loss
