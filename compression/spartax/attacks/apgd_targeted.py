"""Targeted APGD: one run for each of the classes the network finds likeliest after the right one."""

import jax.numpy as jnp

from spartax import checks
from spartax.attacks import losses
from spartax.attacks.apgd import State, begin, prepare, resumable
from spartax.attacks.network import Network
from spartax.attacks.resumable import Resumable, Rows
from spartax.records import Array


def apgd_targeted(
    eps: float,
    norm: str = "linf",
    *,
    targets: int = 9,
    steps: int = 100,
    restarts: int = 1,
    rho: float = 0.75,
    eot: int = 1,
    parity: bool = False,
    large_eps: bool = False,
) -> Resumable:
    """Auto-PGD on the targeted DLR loss, for the `min(targets, K - 1)` runner-up classes of the clean image in turn.

    Any misclassification counts as success. With three classes or fewer, where the targeted DLR loss is not defined,
    the loss is the targeted margin `z_t - z_y`. See Croce and Hein, AutoAttack, arXiv 2003.01690.

    Args:
      eps: radius in pixel units of [0, 1].
      norm: `"linf"`, `"l2"` or `"l1"`.
      targets: how many classes are aimed at, in decreasing order of their clean logit.
      steps: iterations of a run.
      restarts: runs from independent random starts for each target.
      rho: the share of a window's steps that must have raised the loss.
      eot: forward and backward passes averaged into each gradient.
      parity: see `apgd`.
      large_eps: see `apgd`.

    Returns:
      A `Resumable`: `attack(key, logits_fn, x, y, *, index=None) -> x_adv`.

    Raises:
      ValueError: an option out of range; `large_eps` with another norm than l1.
    """
    checks.positive_int("targets", targets)
    checks.positive_int("restarts", restarts)
    settings = prepare(eps, norm, dlr_or_margin, steps, rho, eot, parity, large_eps, targeted=True)

    def start(network: Network, given: Rows, run: Array | int) -> State:
        del network
        return begin(settings, given, ranked_class(given.logits, given.y, 1 + run // restarts), run)

    described = {"eps": eps, "norm": norm, "loss": "dlr_targeted", "targets": targets, "steps": steps}
    described |= {"restarts": restarts, "rho": rho, "eot": eot, "parity": parity, "large_eps": large_eps}
    return resumable(settings, start, described, restarts)


def dlr_or_margin(logits: Array, y: Array, targets: Array) -> Array:
    """`losses.dlr_targeted`, or `losses.margin_targeted` where there are too few classes for it."""
    loss = losses.dlr_targeted if logits.shape[1] > 3 else losses.margin_targeted
    return loss(logits, y, targets)


def ranked_class(logits: Array, y: Array, rank: Array | int) -> Array:
    """The class with the `rank`-th largest logit among those that are not `y` (1 is the likeliest), int32 [B]."""
    order = jnp.argsort(jnp.where(losses.chosen(logits, y), jnp.inf, logits), axis=1, descending=True)
    return jnp.take(order, jnp.asarray(rank), axis=1).astype(jnp.int32)
