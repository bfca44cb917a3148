"""`awp`: any loss, at the weights nearby where it is larger."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from spartax import checks
from spartax.arrays import Masked, dense, is_leaf
from spartax.records import Array, Params
from spartax.train.network import Loss, Network


def awp(base: Loss, *, gamma: float = 0.005) -> Loss:
    """`base` at `w + v`, with `v_l = gamma |w_l| g_l / |g_l|` for every layer, `g = grad base(w)`: adversarial weights.

    The gradient of the result is that of `base` at `w + v`. Only trained arrays of two axes or more move: kernels,
    factors; not biases, norms, masks, codes, nor weights under a mask, and `|w_l|` counts what the mask keeps. Attacks
    see the weights before the move, and the same key, so that both times the images are the same; it costs a second
    attack, forward and backward pass. Begin some epochs late or with a small gamma. See Wu, Xia and Wang, "Adversarial
    Weight Perturbation Helps Robust Generalization" (arXiv 2004.05884).

    Args:
      base: such as `train.pgd_at(attack)` or `train.trades(eps)`.
      gamma: size of the move relative to that of the layer, 0 or more.

    Returns:
      `loss(network, key, x, y) -> (value, updates)`, see `train.Loss`.

    Raises:
      ValueError: gamma out of its range; at use, a network whose weights cannot be exchanged (`Network.at`).
    """
    checks.in_range("gamma", gamma, 0.0, math.inf, open_high=True)

    @functools.wraps(base)
    def loss(network: Network, key: Array, x: Array, y: Array) -> tuple[Array, dict]:
        at = network.at
        if at is None:
            raise ValueError("network must have its `at`, as the networks of train.make_step do; awp moves weights.")

        def value(trainable: Params) -> tuple[Array, dict]:
            return base(at(trainable)._replace(logits=network.logits), key, x, y)

        rise = jax.grad(value, has_aux=True)(network.trainable)[0]
        moves = jax.tree.map(lambda w, g: _move(w, g, gamma), _kept(network), rise)
        return value(jax.tree.map(jnp.add, network.trainable, jax.lax.stop_gradient(moves)))

    return loss


def _move(weight: Array, rise: Array, gamma: float) -> Array:
    if weight.ndim < 2:
        return jnp.zeros_like(weight)
    return gamma * jnp.linalg.norm(weight.ravel()) * rise / (jnp.linalg.norm(rise.ravel()) + 1e-12)


def _kept(network: Network) -> Params:
    """The trained arrays with zeros where a mask removes them."""
    variables = network.variables
    params = variables["params"] if isinstance(variables, dict) and "params" in variables else variables

    def kept(trained: Any, whole: Any) -> Any:
        plain_mask = isinstance(trained, Masked) and not is_leaf(trained.weight) and trained.weight is not None
        return dataclasses.replace(trained, weight=dense(whole)) if plain_mask else trained  # in a refresh it is dense

    none_too = lambda w: w is None or is_leaf(w)  # noqa: E731
    return jax.tree.map(kept, network.trainable, params, is_leaf=none_too)
