"""`clean`: cross-entropy on the images as they are."""

import jax.numpy as jnp
import optax

from spartax.records import Array
from spartax.train.network import Loss, Network


def clean() -> Loss:
    """Mean cross-entropy `mean_i -log softmax(f(x_i))[y_i]`.

    Returns:
      `loss(network, key, x, y) -> (value, updates)`, see `train.Loss`; the key is not used.
    """

    def loss(network: Network, key: Array, x: Array, y: Array) -> tuple[Array, dict]:
        del key
        logits, updates = network.forward(x)
        losses = optax.losses.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), y)
        return jnp.mean(losses), updates

    return loss
