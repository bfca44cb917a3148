"""`clean`: cross-entropy on the images as they are."""

import jax.numpy as jnp

from spartax.records import Array
from spartax.train.divergence import cross_entropy
from spartax.train.network import Loss, Network


def clean() -> Loss:
    """Mean cross-entropy `mean_i -log softmax(f(x_i))[y_i]`.

    Returns:
      `loss(network, key, x, y) -> (value, updates)`, see `train.Loss`; the key is not used.
    """

    def loss(network: Network, key: Array, x: Array, y: Array) -> tuple[Array, dict]:
        del key
        logits, updates = network.forward(x)
        return jnp.mean(cross_entropy(logits, y)), updates

    return loss
