"""How much more robust a network is on the images it was trained on."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from spartax import checks
from spartax.records import ApplyFn, Array, Attack, Params
from spartax.train.divergence import cross_entropy

Images = tuple[Any, Any]  # images [N, ...], labels [N]


def robust_gap(
    attack: Attack, apply: ApplyFn, trained: Images, held: Images, key: Array
) -> Callable[[Params], tuple[float, float]]:
    """`variables -> (mean CE on held-out images, robust accuracy on trained minus held-out ones)`, all under attack.

    The robust generalization gap of Rice et al., Overfitting in Adversarially Robust Deep Learning (arXiv 2002.11569);
    what `prune.flying_bird` watches.

    Args:
      attack: such as that of the training.
      apply: `apply(variables, x) -> logits [B, K]` that accepts compressed leaves.
      trained: images and labels that are trained on; some hundreds are enough.
      held: others, that are not.
      key: PRNG key of the attack, the same at every call.

    Raises:
      ValueError: labels that do not fit the images.
    """
    for name, (x, y) in {"trained": trained, "held": held}.items():
        checks.labels(name, jnp.asarray(y), batch=len(x))

    @jax.jit
    def judged(variables: Params, x: Array, y: Array) -> tuple[Array, Array]:
        logits_fn = Partial(apply, variables)
        logits = logits_fn(attack(key, logits_fn, x, y))
        return jnp.mean(cross_entropy(logits, y)), jnp.mean(jnp.argmax(logits, axis=1) == y)

    def gap(variables: Params) -> tuple[float, float]:
        (_, seen), (loss, unseen) = judged(variables, *trained), judged(variables, *held)
        return float(loss), float(seen - unseen)

    return gap
