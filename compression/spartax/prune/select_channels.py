"""Which channels go."""

import math
from collections.abc import Mapping

import numpy as np

from spartax import checks


def select_channels(
    scores: Mapping[str, np.ndarray],
    sparsity: float,
    *,
    pooled: bool = True,
    max_sparsity: float = 0.9,
    least: int = 1,
    round_to: int = 1,
) -> dict[str, np.ndarray]:
    """The channels with the lowest scores: `{name: bool [channels]}`, True = removed.

    `round(sparsity * n)` channels go, of all groups together when `pooled`, else of each group; among equal scores
    those with the lowest index stay. No group loses more than `floor(max_sparsity * n)`, or keeps fewer than `least`;
    then the kept count of a group is rounded up to a multiple of `round_to` (8 suits most hardware, 128 the lanes of a
    TPU).

    Args:
      scores: `{name: [channels]}`, as `prune.group_scores` gives them; leave out groups that should stay whole.
      sparsity: removed fraction of the channels, in [0, 1).
      pooled: one ranking over all groups.
      max_sparsity: most that one group loses, in [0, 1).
      least: channels that every group keeps.
      round_to: multiple of which each kept count is, as far as the group has channels.

    Raises:
      ValueError: no scores, or an argument out of its range.
    """
    checks.in_range("sparsity", sparsity, 0.0, 1.0, open_high=True)
    checks.in_range("max_sparsity", max_sparsity, 0.0, 1.0, open_high=True)
    checks.positive_int("least", least)
    checks.positive_int("round_to", round_to)
    if not scores:
        raise ValueError("scores must hold at least one group; got none.")
    most = {name: max(0, min(math.floor(max_sparsity * len(s) + 1e-9), len(s) - least)) for name, s in scores.items()}
    pools = [list(scores)] if pooled else [[name] for name in scores]
    gone: dict[str, np.ndarray] = {}
    for pool in pools:
        gone |= _lowest({name: np.asarray(scores[name], np.float64) for name in pool}, sparsity, most)
    return {name: _rounded(np.asarray(scores[name]), gone[name], round_to) for name in scores}


def _order(score: np.ndarray) -> np.ndarray:
    """First to go first: lowest score, then highest index."""
    return np.lexsort((-np.arange(len(score)), score))


def _lowest(scores: dict[str, np.ndarray], sparsity: float, most: dict[str, int]) -> dict[str, np.ndarray]:
    """In the order of the pool, as long as the group of each channel may lose one more."""
    names = [name for name, score in scores.items() for _ in score]
    index = np.concatenate([np.arange(len(score)) for score in scores.values()])
    gone = {name: np.zeros(len(score), bool) for name, score in scores.items()}
    left = round(sparsity * len(names))
    for i in _order(np.concatenate(list(scores.values()))):
        if left and gone[names[i]].sum() < most[names[i]]:
            gone[names[i]][index[i]] = True
            left -= 1
    return gone


def _rounded(score: np.ndarray, gone: np.ndarray, round_to: int) -> np.ndarray:
    """The best of the removed come back until the kept count is a multiple."""
    kept = len(score) - int(gone.sum())
    back = min(-kept % round_to, int(gone.sum()))
    order = [i for i in _order(score)[::-1] if gone[i]]
    return gone & ~np.isin(np.arange(len(score)), order[:back])
