"""`radmm`: any loss, with the pull of ADMM towards sparse weights."""

import functools
import math

import jax
import jax.numpy as jnp

from spartax import checks
from spartax.arrays import Pulled
from spartax.records import Array
from spartax.train.network import Loss, Network


def radmm(base: Loss, rho: float = 1e-3) -> Loss:
    """`base + rho/2 sum |W - point|^2` over the weights that `prune.radmm` pulls, `point = Z - U`.

    See Ye et al., Adversarial Robustness vs. Model Compression, or Both? (arXiv 1903.12561), where `rho` rises tenfold
    from stage to stage: make a step for each.

    Args:
      base: an adversarial loss, such as `train.pgd_at(attack)`.
      rho: factor, 0 or more.

    Returns:
      `loss(network, key, x, y) -> (value, updates)`, see `train.Loss`.

    Raises:
      ValueError: rho out of its range; at use, a network without such a weight.
    """
    checks.in_range("rho", rho, 0.0, math.inf, open_high=True)

    @functools.wraps(base)
    def loss(network: Network, key: Array, x: Array, y: Array) -> tuple[Array, dict]:
        is_own = lambda w: isinstance(w, Pulled)  # noqa: E731
        own = [w for w in jax.tree.leaves(network.variables, is_leaf=is_own) if is_own(w)]
        if not own:
            raise ValueError("network holds no weight that is pulled; begin with prune.radmm.")
        value, updates = base(network, key, x, y)
        away = sum((jnp.sum((w.weight - w.point) ** 2) for w in own), start=jnp.zeros(()))
        return value + rho / 2 * away, updates

    return loss
