"""One shot: everything at once."""

from spartax import checks
from spartax.records import Schedule


def one_shot(at: int = 0) -> Schedule:
    """Dense before training step `at`, the final sparsity from then on; masks are set once and stay.

    Args:
      at: training step, counted from 0.

    Raises:
      ValueError: a step that is no integer of at least 0.
    """
    checks.positive_int("at", at, least=0)
    return Schedule(lambda final, step: final if step >= at else 0.0, lambda step: step == at)
