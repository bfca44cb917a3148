"""`label_smoothing`: cross-entropy with labels that are not quite certain."""

import jax.numpy as jnp

from spartax import checks
from spartax.records import Array
from spartax.train.divergence import cross_entropy
from spartax.train.network import Loss, Network


def label_smoothing(smoothing: float = 0.1) -> Loss:
    """`mean_i (1 - a) CE(f(x_i), y_i) + a mean_c CE(f(x_i), c)`.

    See Szegedy et al., "Rethinking the Inception Architecture for Computer Vision" (arXiv 1512.00567). On attacked
    images: `train.pgd_at(attack, train.label_smoothing())`.

    Args:
      smoothing: `a` in [0, 1); 0 is `train.clean()`.

    Returns:
      `loss(network, key, x, y) -> (value, updates)`, see `train.Loss`; the key is not used.

    Raises:
      ValueError: smoothing outside its range.
    """
    checks.in_range("smoothing", smoothing, 0.0, 1.0, open_high=True)

    def loss(network: Network, key: Array, x: Array, y: Array) -> tuple[Array, dict]:
        del key
        logits, updates = network.forward(x)
        right = cross_entropy(logits, y)  # CE(f, c) = CE(f, y) + f_y - f_c
        logits = logits.astype(jnp.float32)
        chosen = jnp.take_along_axis(logits, y[:, None], axis=1)[:, 0]
        return jnp.mean(right + smoothing * (chosen - jnp.mean(logits, axis=1))), updates

    return loss
