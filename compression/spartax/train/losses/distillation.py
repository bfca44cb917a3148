"""`distillation`: a student learns the softened predictions of a teacher beside the labels."""

import jax.numpy as jnp

from spartax import checks
from spartax.records import Array, LogitsFn
from spartax.train.divergence import cross_entropy, divergence, taught
from spartax.train.network import Loss, Network


def distillation(teacher: LogitsFn, *, alpha: float = 0.9, temperature: float = 4.0) -> Loss:
    """`(1 - alpha) mean CE(f(x), y) + alpha T^2 mean KL(softmax(t(x) / T) || softmax(f(x) / T))`.

    See Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (arXiv 1503.02531).

    Args:
      teacher: `x -> logits [B, K]` in evaluation mode.
      alpha: share of the teacher, in [0, 1].
      temperature: `T`, positive.

    Returns:
      `loss(network, key, x, y) -> (value, updates)`, see `train.Loss`; the key is not used.

    Raises:
      ValueError: alpha or temperature out of range; at the call, a teacher with another number of classes.
    """
    checks.in_range("alpha", alpha, 0.0, 1.0)
    checks.positive("temperature", temperature)

    def loss(network: Network, key: Array, x: Array, y: Array) -> tuple[Array, dict]:
        del key
        logits, updates = network.forward(x)
        soft = temperature**2 * divergence(taught(teacher, x, logits), logits, temperature)
        return jnp.mean((1 - alpha) * cross_entropy(logits, y) + alpha * soft), updates

    return loss
