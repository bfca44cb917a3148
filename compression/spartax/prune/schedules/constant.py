"""Constant: sparse from the first step to the last."""

from spartax import checks
from spartax.records import Schedule


def constant(every: int | None = None) -> Schedule:
    """The final sparsity at every step.

    With `prune.random()` and masks that stay this is sparse training from random masks (Liu et al., The Unreasonable
    Effectiveness of Random Pruning, arXiv 2202.02643).

    Args:
      every: training steps between two refreshes of the masks; None sets them once.

    Raises:
      ValueError: `every` that is no integer of at least 1.
    """
    if every is not None:
        checks.positive_int("every", every)
    return Schedule(lambda final, step: final, lambda step: step == 0 if every is None else step % every == 0)
