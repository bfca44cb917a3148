"""Cross-entropy and divergence of each example: the terms that losses are made of."""

import jax
import jax.numpy as jnp
import optax

from spartax.records import Array, LogitsFn


def cross_entropy(logits: Array, y: Array) -> Array:
    """`-log softmax(logits)[y]`, float32 [B]."""
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), y)


def divergence(target: Array, logits: Array, temperature: float = 1.0) -> Array:
    """`KL(softmax(target / T) || softmax(logits / T))` of logits [B, K], summed over classes, float32 [B]."""
    wanted, found = (jax.nn.log_softmax(z.astype(jnp.float32) / temperature) for z in (target, logits))
    return jnp.sum(jnp.exp(wanted) * (wanted - found), axis=1)


def taught(teacher: LogitsFn, x: Array, logits: Array) -> Array:
    """The logits of the teacher at `x`, without a gradient.

    Raises:
      ValueError: they have another shape than the logits of the student.
    """
    target = jax.lax.stop_gradient(teacher(x))
    if target.shape != logits.shape:
        raise ValueError(f"teacher must give logits {logits.shape} like the student; got {target.shape}.")
    return target
