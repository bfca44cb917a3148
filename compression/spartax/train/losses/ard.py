"""`ard`: a student under attack learns what its teacher says of clean images."""

import jax.numpy as jnp

from spartax import checks
from spartax.records import Array, Attack, LogitsFn
from spartax.train.attacked import attacked, averaged_updates
from spartax.train.divergence import cross_entropy, divergence, taught
from spartax.train.network import Loss, Network, attacking


def ard(teacher: LogitsFn, attack: Attack, *, alpha: float = 1.0, temperature: float = 30.0) -> Loss:
    """`alpha T^2 mean KL(softmax(t(x) / T) || softmax(f(x') / T)) + (1 - alpha) mean CE(f(x), y)`.

    `x' = attack(f, x, y)` is made against the student. With `alpha=1` there is no clean pass. The divergence is summed
    over classes; the published code divides it by their number. See Goldblum et al., "Adversarially Robust
    Distillation" (arXiv 1905.09747).

    Args:
      teacher: `x -> logits [B, K]` in evaluation mode, of a robust network.
      attack: such as `attacks.pgd(8 / 255, steps=10)`.
      alpha: share of the teacher, in [0, 1].
      temperature: `T`, positive.

    Returns:
      `loss(network, key, x, y) -> (value, updates)`, see `train.Loss`; statistics are the mean of those of all passes.

    Raises:
      ValueError: alpha or temperature out of range; at the call, a teacher with another number of classes.
    """
    checks.in_range("alpha", alpha, 0.0, 1.0)
    checks.positive("temperature", temperature)

    @attacking
    def loss(network: Network, key: Array, x: Array, y: Array) -> tuple[Array, dict]:
        logits, updates = network.forward(attacked(attack, network, key, x, y))
        soft = temperature**2 * jnp.mean(divergence(taught(teacher, x, logits), logits, temperature))
        if alpha == 1:
            return soft, updates
        clean, others = network.forward(x)
        return alpha * soft + (1 - alpha) * jnp.mean(cross_entropy(clean, y)), averaged_updates(updates, others)

    return loss
