"""`defensive_distillation`: training at a high temperature, on labels and then on a teacher's probabilities."""

import jax
import jax.numpy as jnp

from spartax import checks
from spartax.records import Array, LogitsFn
from spartax.train.divergence import cross_entropy, taught
from spartax.train.network import Loss, Network


def defensive_distillation(teacher: LogitsFn | None = None, *, temperature: float = 20.0) -> Loss:
    """`mean CE(softmax(t(x) / T), softmax(f(x) / T))`; without a teacher `mean CE(y, softmax(f(x) / T))`.

    Train a teacher without one, then a student on it; use the student at temperature 1. Its logits are then some T
    times larger, and the gradient of its cross-entropy vanishes: FGSM fails, an attack on the logits (`attacks.cw`, or
    `attacks.pgd(loss=attacks.losses.margin)`) does not. It is a defense to be broken, not one to rely on. See Papernot
    et al., arXiv 1511.04508; Evaluating Adversarial Robustness: A Comparison Of FGSM, Carlini-Wagner Attacks, And The
    Role of Distillation as Defense Mechanism.

    Args:
      teacher: `x -> logits [B, K]` in evaluation mode.
      temperature: `T`, positive.

    Returns:
      `loss(network, key, x, y) -> (value, updates)`, see `train.Loss`; the key is not used.

    Raises:
      ValueError: temperature out of range; at the call, a teacher with another number of classes.
    """
    checks.positive("temperature", temperature)

    def loss(network: Network, key: Array, x: Array, y: Array) -> tuple[Array, dict]:
        del key
        logits, updates = network.forward(x)
        logits = logits.astype(jnp.float32)
        if teacher is None:
            return jnp.mean(cross_entropy(logits / temperature, y)), updates
        wanted = jax.nn.softmax(taught(teacher, x, logits).astype(jnp.float32) / temperature)
        return -jnp.mean(jnp.sum(wanted * jax.nn.log_softmax(logits / temperature), axis=1)), updates

    return loss
