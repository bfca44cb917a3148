"""Cubic: fast at first, when there is much to remove, slower and slower towards the end."""

from spartax import checks
from spartax.records import Schedule


def cubic(begin: int, end: int, every: int = 100, initial: float = 0.0) -> Schedule:
    """Gradual pruning `s(t) = s_f + (s_i - s_f) (1 - (t - begin) / (end - begin))**3`, refreshed every few steps.

    `s_f` is the final sparsity and `s_i` the initial one; between two refreshes the sparsity and the masks stay, and so
    they do before `begin` (at `s_i`) and after `end` (at `s_f`). See Zhu and Gupta, To Prune, or Not to Prune, arXiv
    1710.01878. Removed entries keep their values, without a gradient, and come back if they rank high enough.

    Args:
      begin: first training step with a refresh.
      end: last one; 75 to 80 % of training is usual.
      every: steps between refreshes; the last interval may be shorter.
      initial: sparsity at `begin` and before, in [0, 1); the final one where that is smaller.

    Raises:
      ValueError: steps that are no integers, `end` not after `begin`, `initial` outside [0, 1).
    """
    checks.positive_int("begin", begin, least=0)
    checks.positive_int("end", end, least=begin + 1)
    checks.positive_int("every", every)
    checks.in_range("initial", initial, 0.0, 1.0, open_high=True)

    def sparsity(final: float, step: int) -> float:
        last = end if step >= end else max(begin, step - (step - begin) % every)
        left = 1 - (last - begin) / (end - begin)
        return final + (min(initial, final) - final) * left**3

    def due(step: int) -> bool:
        return step == 0 or step == end or (begin <= step < end and (step - begin) % every == 0)

    return Schedule(sparsity, due)
