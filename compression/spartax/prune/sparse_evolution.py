"""Sparse evolutionary training (SET): sparse from the first step on, with weights that grow anywhere."""

from spartax.prune.criteria.random import random
from spartax.prune.drop_grow import drop_grow
from spartax.records import Allocation, Transform


def sparse_evolution(
    sparsity: float = 0.9, allocation: Allocation | None = None, *, end: int, every: int = 100, fraction: float = 0.3
) -> Transform:
    """SET: random masks that move: drop the smallest weights, grow as many at random, counts fixed.

    Like `prune.rigl`, cosine decay included, but growth is drawn from `evidence.key`, so no gradient of removed weights
    is needed. See Mocanu et al., Scalable Training of Artificial Neural Networks with Adaptive Sparse Connectivity,
    arXiv 1707.04780 (where the fraction stays the same).

    Args:
      sparsity: removed fraction, in [0, 1).
      allocation: counts of each weight; `prune.erk()` when left out.
      end: training step from which masks stay.
      every: steps between two moves.
      fraction: part of the weights that moves at first.

    Raises:
      ValueError: values outside these ranges; at use, a weight that is compressed already or left with no entries, a
        step or key that is missing.
    """
    return drop_grow("sparse_evolution", random().score, (), sparsity, allocation, fraction, every, end)
