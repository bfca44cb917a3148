"""Iterative pruning with rewinding: the lottery ticket procedure, around any training function."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from spartax import checks, tree
from spartax.arrays import dense
from spartax.records import Array, Evidence, Info, Layout, Params, Path, Transform

Fit = Callable[[Params, Array], Params]  # (params with masks, key) -> the same, trained to the end


class Ticket(NamedTuple):
    """One round.

    Attributes:
      params: the masked network, trained to the end.
      info: what the pruning before this training did; empty in round 0.
    """

    params: Params
    info: Info


def lottery(
    fit: Fit,
    params: Params,
    transform: Transform,
    layouts: dict[Path, Layout],
    key: Array,
    *,
    rounds: int,
    rewind: str = "weights",
) -> list[Ticket]:
    """Train; then `rounds` times: prune, rewind what is left, train again. Every round trains with the same `key`.

    Global magnitude pruning of 20 % of the rest in each of ten rounds is

        transform = prune.prune(prune.magnitude(), 1 - 0.8**10, schedule=prune.exponential(10), regrow=False)

    Evidence of round `r = 0, 1, ...` holds `step=r`, a key, and as `originals` the weights its training began with.
    See Frankle and Carbin, The Lottery Ticket Hypothesis, arXiv 1803.03635; Frankle et al., Linear Mode Connectivity
    and the Lottery Ticket Hypothesis, arXiv 1912.05671 (weights of step k); Renda et al., Comparing Rewinding and
    Fine-tuning, arXiv 2003.02389 (learning rate).

    Args:
      fit: trains from the given params with a fresh optimizer, such as a call of `train.init_state` and `train.fit`.
      params: weights to rewind to: those at initialization, or after the first k steps (then `fit` runs from step k).
      transform: how a round prunes.
      layouts: path -> `Layout` of the selected weights, such as the `layouts` of the `Method` that `train.begin` gives.
      key: PRNG key.
      rounds: number of prunings.
      rewind: `"weights"` puts the weights of `params` under the new mask; `"rate"` keeps the trained ones, so that only
        the learning rate of `fit` starts anew.

    Returns:
      `rounds + 1` tickets, from dense to sparsest.

    Raises:
      ValueError: no rounds, an unknown `rewind`.
    """
    checks.positive_int("rounds", rounds)
    checks.one_of("rewind", rewind, ("weights", "rate"))
    train_key, prune_key = jax.random.split(key)
    start, state = transform.init(params, Evidence(layouts, key=prune_key, step=0))
    tickets = [Ticket(fit(start, train_key), {})]
    for number in range(rounds):
        given = Evidence(layouts, jax.random.fold_in(prune_key, number), step=number)
        start, state, info = next_start(transform, state, start, tickets[-1].params, given, rewind)
        tickets.append(Ticket(fit(start, train_key), info))
    return tickets


def next_start(
    transform: Transform, state: Any, start: Params, trained: Params, given: Evidence, rewind: str
) -> tuple[Params, Any, Info]:
    """`(params, state, info)`: prune what was trained from `start`, and rewind what is left."""
    begun = {path: dense(w) for path, w in tree.pick(start, given.layouts).items()}
    pruned, state, info = transform.update(trained, state, given._replace(originals=begun))
    rewound = tree.merge(tree.split(start)[0], tree.split(pruned)[1]) if rewind == "weights" else pruned
    return rewound, state, info
