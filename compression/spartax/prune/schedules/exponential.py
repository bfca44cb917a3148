"""Exponential: every round keeps the same fraction of what is left."""

from spartax import checks
from spartax.records import Schedule


def exponential(rounds: int, every: int = 1, begin: int = 0) -> Schedule:
    """Density `d**(k / rounds)` in round `k = 1, ..., rounds`, `d` being the final density; dense before `begin`.

    Round `k` is training step `begin + (k - 1) every`. Iterative SNIP (arXiv 2006.09081) and SynFlow (arXiv 2006.05467)
    score again in every round; with `every` as long as a training it is the lottery ticket's removal of a fixed
    fraction of the rest (arXiv 1803.03635): `rounds` of 20 % leave `0.8**rounds`.

    Args:
      rounds: number of refreshes.
      every: training steps between two of them.
      begin: training step of the first one.

    Raises:
      ValueError: numbers that are no integers, or too small.
    """
    checks.positive_int("rounds", rounds)
    checks.positive_int("every", every)
    checks.positive_int("begin", begin, least=0)

    def sparsity(final: float, step: int) -> float:
        done = max((step - begin) // every + 1, 0)
        return final if done >= rounds else 1 - (1 - final) ** (done / rounds)

    return Schedule(sparsity, lambda step: (step - begin) % every == 0 and 0 <= step - begin < rounds * every)
