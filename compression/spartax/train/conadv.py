"""ConAdv: attacked images made with the weights of the step before, while that step is taken."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from spartax import checks
from spartax.records import ApplyFn, Array, Attack, Params
from spartax.train.attacked import attacked
from spartax.train.divergence import cross_entropy
from spartax.train.network import Loss, Network, attacking

OWN = "adversary"  # the collection of the variables that holds the attacked images of the coming batch


def conadv(attack: Attack, *, share: float = 0.5) -> Loss:
    """`(1 - share) mean CE(f(x)) + share mean CE(f(x'))`, `x'` attacked with the weights before the last update.

    One step trains on a batch and attacks the next one. Both begin from the same weights and neither waits for the
    other, so that the longest chain of passes is that of the longer of the two, not of both: with an attack of one step
    the adversary costs no time where there are devices for it, and the same work as a fresh one where there are not.

        variables = train.with_adversary({"params": params}, attack, apply, key, *first_batch)
        step = train.make_step(train.conadv(attack), tx, apply)
        train.fit(step, train.init_state(variables, tx), train.look_ahead(batches), key)

    Running statistics of batch normalization are those of the pass over clean images, as in the main branch of the
    paper; scales and shifts are shared. Afterwards `variables` hold the collection "adversary" too, which evaluation
    ignores. See Liu et al., Concurrent Adversarial Learning for Large-Batch Training, arXiv 2106.00221 (there with LARS
    or LAMB and a rate that warms up: `optax.lars`, `train.warm_up`).

    Args:
      attack: such as `attacks.fgsm(eps)`, the one step of the paper.
      share: of the attacked images in the loss, in [0, 1].

    Returns:
      `loss(network, key, x [B, 2, ...], y [B, 2]) -> (value, updates)` for the pairs of `look_ahead`.

    Raises:
      ValueError: share out of its range; at use, variables without attacked images, batches that are no pairs.
    """
    checks.in_range("share", share, 0.0, 1.0)

    @attacking
    def loss(network: Network, key: Array, x: Array, y: Array) -> tuple[Array, dict[str, Any]]:
        if not isinstance(network.variables, Mapping) or OWN not in network.variables:
            raise ValueError("variables must come from train.with_adversary, which attacks the first batch.")
        if y.ndim != 2 or y.shape[1] != 2:
            raise ValueError(f"batches must come from train.look_ahead, labels [B, 2]; got {y.shape}.")
        stale = network.variables[OWN]["x"]
        (clean, updates), (other, _) = network.forward(x[:, 0]), network.forward(stale)
        each = (1 - share) * cross_entropy(clean, y[:, 0]) + share * cross_entropy(other, y[:, 0])
        return jnp.mean(each), {**updates, OWN: {"x": attacked(attack, network, key, x[:, 1], y[:, 1])}}

    return loss


def with_adversary(variables: Params, attack: Attack, apply: ApplyFn, key: Array, x: Any, y: Any, *_: Any) -> Params:
    """Flax collections with the attacked images of the first batch, for `conadv`.

    Raises:
      ValueError: variables that are no collections.
    """
    if not isinstance(variables, Mapping) or "params" not in variables:
        raise ValueError("variables must be collections, {'params': ...}; conadv keeps attacked images beside params.")
    return {**variables, OWN: {"x": attack(key, Partial(apply, variables), jnp.asarray(x), jnp.asarray(y))}}


def look_ahead(batches: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Array, Array]]:
    """`(x [B, 2, ...], y [B, 2])`: every batch together with the next one, the last with itself.

    Raises:
      ValueError: on the way, a batch of another size, as a short last one: its images would have to be attacked in a
        step on more, or fewer.
    """
    before = None
    for x, y, *_ in batches:
        if before is not None:
            if len(y) != len(before[1]):
                raise ValueError(
                    f"batches must be of one size, as those of data.batches(..., drop_last=True); got {len(y)} "
                    f"examples after {len(before[1])}."
                )
            yield _paired(before, (x, y))
        before = x, y
    if before is not None:
        yield _paired(before, before)


def _paired(now: tuple[Any, Any], coming: tuple[Any, Any]) -> tuple[Any, Any]:
    x, y = (np.stack(pair, axis=1) for pair in zip(now, coming, strict=True))
    return x, y
