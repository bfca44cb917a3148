"""`overfitting`: the alarm of single-step adversarial training."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from spartax import attacks, checks
from spartax.attacks.network import as_pytree
from spartax.records import Array, Attack, LogitsFn


class Overfitting(NamedTuple):
    """Accuracies on a few training images.

    Attributes:
      one_step: after FGSM.
      many_steps: after PGD of the same radius.
      gap: their difference.
      alarm: whether the gap is above the limit: the network has learnt to mislead the single step.
    """

    one_step: float
    many_steps: float
    gap: float
    alarm: bool


def overfitting(
    logits_fn: LogitsFn,
    key: Array,
    x: Array | np.ndarray,
    y: Array | np.ndarray,
    eps: float,
    *,
    steps: int = 10,
    limit: float = 0.1,
) -> Overfitting:
    """Whether single-step training has overfitted to its own attack ("catastrophic overfitting").

    The sign is an accuracy that stays high under one step and falls under many. Look at it once an epoch, on a few
    hundred training images: the network is lost within some hundred steps. See Wong, Rice and Kolter (arXiv
    2001.03994).

    Args:
      logits_fn: `x -> logits [B, K]` in evaluation mode; a `jax.tree_util.Partial(apply, variables)` compiles once.
      key: PRNG key.
      x: images `[B, ...]` in [0, 1]; all are attacked at once.
      y: labels `[B]`.
      eps: linf radius in pixel units of [0, 1].
      steps: of PGD.
      limit: gap of the alarm, a difference of accuracies in [0, 1].

    Raises:
      ValueError: what the attacks refuse, or a limit outside [0, 1].
    """
    checks.in_range("limit", limit, 0.0, 1.0)
    network = as_pytree(logits_fn)
    checks.images("x", x)
    checks.labels("y", y, batch=len(x), classes=jax.eval_shape(network, x).shape[1])
    given = key, jnp.asarray(x), jnp.asarray(y)
    one, many = (float(_accuracy(attack, network, *given)) for attack in _attacks(eps, steps))
    return Overfitting(one, many, one - many, one - many > limit)


@functools.lru_cache(maxsize=8)  # the same functions share what they compile
def _attacks(eps: float, steps: int) -> tuple[Attack, Attack]:
    return attacks.fgsm(eps), attacks.pgd(eps, steps=steps)


@functools.partial(jax.jit, static_argnums=0)
def _accuracy(attack: Attack, logits_fn: LogitsFn, key: Array, x: Array, y: Array) -> Array:
    return jnp.mean(jnp.argmax(logits_fn(attack(key, logits_fn, x, y)), axis=1) == y)
