"""`trades`: accuracy on clean images, and predictions that stay when they are attacked."""

import math

import jax.numpy as jnp

from spartax import checks
from spartax.records import Array
from spartax.train.attacked import averaged_updates, farthest
from spartax.train.divergence import cross_entropy, divergence
from spartax.train.network import Loss, Network, attacking


def trades(
    eps: float, norm: str = "linf", *, beta: float = 6.0, steps: int = 10, step_size: float | None = None
) -> Loss:
    """`mean CE(f(x), y) + beta mean KL(p(x) || p(x'))`, `x'` where that divergence is largest in the ball.

    Both passes are in training mode, and both have a gradient; `x'` is found in evaluation mode by PGD on the
    divergence from `x + 0.001 N(0, 1)`. See Zhang et al., "Theoretically Principled Trade-off between Robustness and
    Accuracy" (arXiv 1901.08573).

    Args:
      eps: radius in pixel units of [0, 1].
      norm: `"linf"`, `"l2"` or `"l1"`.
      beta: weight of the divergence, 0 or more.
      steps: of PGD.
      step_size: in pixel units; `2.5 * eps / steps` when left out.

    Returns:
      `loss(network, key, x, y) -> (value, updates)`, see `train.Loss`; statistics are the mean of those of both passes.

    Raises:
      ValueError: an argument out of its range.
    """
    checks.in_range("beta", beta, 0.0, math.inf, open_high=True)
    find = farthest(divergence, eps, norm, steps, step_size)

    @attacking
    def loss(network: Network, key: Array, x: Array, y: Array) -> tuple[Array, dict]:
        moved = find(network, key, x, network.logits(x))
        (clean, first), (attacked, second) = network.forward(x), network.forward(moved)
        value = jnp.mean(cross_entropy(clean, y)) + beta * jnp.mean(divergence(clean, attacked))
        return value, averaged_updates(first, second)

    return loss
