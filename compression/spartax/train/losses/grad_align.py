"""`grad_align`: any loss, with gradients in the image that point the same way within the ball."""

import functools
import math

import jax
import jax.numpy as jnp
import optax

from spartax import checks
from spartax.records import Array
from spartax.train.divergence import cross_entropy
from spartax.train.network import Loss, Network


def grad_align(base: Loss, eps: float, *, weight: float = 0.2) -> Loss:
    """`base + weight (1 - mean_i cos(grad CE(f(x_i)), grad CE(f(x_i + d_i))))`, `d` uniform in [-eps, eps].

    It keeps the network near linear inside the ball, so that `train.fgsm_rs` does not overfit to its one step. All
    passes are in training mode; an example with a zero gradient does not count. See Andriushchenko and Flammarion,
    "Understanding and Improving Fast Adversarial Training" (arXiv 2007.02617).

    Args:
      base: such as `train.fgsm_rs(eps)`.
      eps: linf radius in pixel units of [0, 1].
      weight: 0 or more; published for CIFAR-10: 0.2 at eps 8/255, more for larger ones.

    Returns:
      `loss(network, key, x, y) -> (value, updates)`, see `train.Loss`; statistics are those of `base`.

    Raises:
      ValueError: a number out of its range.
    """
    for name, number in (("eps", eps), ("weight", weight)):
        checks.in_range(name, number, 0.0, math.inf, open_high=True)

    @functools.wraps(base)
    def loss(network: Network, key: Array, x: Array, y: Array) -> tuple[Array, dict]:
        value, updates = base(network, key, x, y)
        noise = jax.random.uniform(jax.random.fold_in(key, 1), x.shape, x.dtype, -eps, eps)
        return value + weight * (1 - _alignment(network, x, x + noise, y)), updates

    return loss


def _alignment(network: Network, x: Array, near: Array, y: Array) -> Array:
    """Mean cosine of the gradients at `x` and `near`; 1 if there is none."""

    def gradient(x: Array) -> Array:
        total = jax.grad(lambda x: jnp.sum(cross_entropy(network.forward(x)[0], y)))(x)
        return total.reshape(total.shape[0], -1)

    one, two = gradient(x), gradient(near)
    sizes = optax.safe_norm(one, 1e-12, axis=1) * optax.safe_norm(two, 1e-12, axis=1)
    counts = jnp.any(one != 0, axis=1) & jnp.any(two != 0, axis=1)
    lost = jnp.where(counts, 1 - jnp.sum(one * two, axis=1) / sizes, 0.0)
    return 1 - jnp.sum(lost) / jnp.maximum(jnp.sum(counts), 1)
