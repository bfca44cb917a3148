"""Fixed: one rank for every weight."""

from spartax import checks
from spartax.records import Evidence, Path, Ranks, Weights


def fixed(rank: int = 16) -> Ranks:
    """`rank` for every weight; the transform keeps those dense whose factors would not be smaller.

    Raises:
      ValueError: `rank` is no positive integer; at use, a weight whose matrix is smaller than the rank.
    """
    checks.positive_int("rank", rank)

    def choose(matrices: Weights, evidence: Evidence) -> dict[Path, int]:
        del evidence
        return dict.fromkeys(matrices, rank)

    return choose
