"""`smooth_comp_sum`: a loss of the cross-entropy family on clean images, and margins that stay when attacked."""

import math

import jax
import jax.numpy as jnp
import optax

from spartax import checks
from spartax.records import Array
from spartax.train.attacked import averaged_updates, farthest
from spartax.train.network import Loss, Network, attacking


def smooth_comp_sum(
    eps: float,
    norm: str = "linf",
    *,
    tau: float = 1.0,
    rho: float = 1.0,
    nu: float = 1.0,
    steps: int = 10,
    step_size: float | None = None,
) -> Loss:
    """`mean Phi_tau(sum_{c != y} exp((z_c - z_y) / rho)) + nu mean sup_{x'} |m(x') - m(x)|_2`, `m_c = z_y - z_c`.

    `Phi_tau(u) = ((1 + u)^(1 - tau) - 1) / (1 - tau)`, `log(1 + u)` at 1: tau 0 is the sum of exponentials, 1
    cross-entropy, between 1 and 2 generalized cross-entropy, 2 the mean absolute error `1 - p_y`. The supremum is
    approached by PGD in evaluation mode; both passes have a gradient. See Mao, Mohri and Zhong, "Cross-Entropy Loss
    Functions: Theoretical Analysis and Applications" (arXiv 2304.07288).

    Args:
      eps: radius in pixel units of [0, 1].
      norm: `"linf"`, `"l2"` or `"l1"`.
      tau: 0 or more.
      rho: scale of the margins, positive.
      nu: weight of the second term, 0 or more.
      steps: of PGD.
      step_size: in pixel units; `2.5 * eps / steps` when left out.

    Returns:
      `loss(network, key, x, y) -> (value, updates)`, see `train.Loss`; statistics are the mean of those of both passes.

    Raises:
      ValueError: an argument out of its range.
    """
    for name, number in (("tau", tau), ("nu", nu)):
        checks.in_range(name, number, 0.0, math.inf, open_high=True)
    checks.positive("rho", rho)
    find = farthest(lambda target, margins: jnp.sum((margins - target) ** 2, axis=1), eps, norm, steps, step_size)

    @attacking
    def loss(network: Network, key: Array, x: Array, y: Array) -> tuple[Array, dict]:
        (clean, first) = network.forward(x)
        seen = network._replace(logits=lambda x: _margins(network.logits(x), y))
        attacked, second = network.forward(find(seen, key, x, seen.logits(x)))
        moved = optax.safe_norm(_margins(attacked, y) - _margins(clean, y), 1e-12, axis=1)
        return jnp.mean(comp_sum(clean, y, tau, rho) + nu * moved), averaged_updates(first, second)

    return loss


def comp_sum(logits: Array, y: Array, tau: float = 1.0, rho: float = 1.0) -> Array:
    """`Phi_tau` of each example, float32 [B]; a tau within 1e-6 of 1 is 1."""
    entropy = jax.nn.logsumexp(-_margins(logits, y) / rho, axis=1)  # log(1 + u)
    return entropy if abs(tau - 1) < 1e-6 else jnp.expm1((1 - tau) * entropy) / (1 - tau)


def _margins(logits: Array, y: Array) -> Array:
    """`z_y - z_c` of every class, float32 [B, K]; 0 for the label."""
    logits = logits.astype(jnp.float32)
    return jnp.take_along_axis(logits, y[:, None], axis=1) - logits
