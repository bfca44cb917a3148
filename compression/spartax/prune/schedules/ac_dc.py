"""AC/DC: phases of dense and of sparse training in turns."""

from spartax import checks
from spartax.records import Schedule


def ac_dc(warmup: int, sparse: int, dense: int, end: int) -> Schedule:
    """Alternating compressed and decompressed training: dense warm-up, then sparse and dense phases, ending sparse.

    Masks are set at the beginning of each phase. A dense phase starts with the removed entries at zero, and whatever
    has grown large enough when it ends is kept by the next mask. See Peste et al., AC/DC, arXiv 2106.12379.

    Args:
      warmup: training steps before the first sparse phase.
      sparse: steps of a sparse phase.
      dense: steps of a dense phase.
      end: step from which training stays sparse; a dense phase that it meets ends there.

    Raises:
      ValueError: numbers that are no integers or too small, `end` before the first sparse phase.
    """
    checks.positive_int("warmup", warmup, least=0)
    checks.positive_int("sparse", sparse)
    checks.positive_int("dense", dense)
    checks.positive_int("end", end, least=warmup)

    def is_sparse(step: int) -> bool:
        return step >= end or (step >= warmup and (step - warmup) % (sparse + dense) < sparse)

    def due(step: int) -> bool:
        return step == 0 or is_sparse(step) != is_sparse(step - 1)

    return Schedule(lambda final, step: final if is_sparse(step) else 0.0, due, forgets=True)
