"""MAC budget: all layers share one number of multiply-adds, spent where it retains most."""

from spartax import catalog, checks
from spartax.lowrank.matrices import spectra
from spartax.lowrank.ranks.byte_budget import one_each, spend
from spartax.records import Evidence, Ranks, Weights


def mac_budget(ratio: float = 0.5) -> Ranks:
    """Like `lowrank.byte_budget`, but a direction of an m x n matrix costs `(m + n)` times the places it is used at.

    A kernel with M multiply-adds is used at `M / (m n)` places, so layers with large images are cut most. Counts are of
    the batch that the program was read with; only their ratios matter.

    Args:
      ratio: share of the multiply-adds of the selected weights, in [0, 1].

    Raises:
      ValueError: `ratio` outside [0, 1]; at use, a budget too small for rank 1 everywhere, no use of a weight known,
        or a factorization with several ranks a weight.
    """
    checks.in_range("ratio", ratio, 0.0, 1.0)

    def choose(matrices: Weights, evidence: Evidence) -> dict[str, int]:
        uses = catalog.need("uses", evidence)
        one_each(matrices, "a budget of multiply-adds")
        dense = {path: sum(use.macs for use in uses[path]) for path in matrices}
        unused = [path for path, macs in dense.items() if not macs]
        if unused:
            raise ValueError(f"{', '.join(unused)}: no use is known, so it has no cost; give compress its batches.")
        price = {p: dense[p] * sum(m.shape[-2:]) // (m.shape[-2] * m.shape[-1]) for p, m in matrices.items()}
        return spend(spectra(matrices), price, dense, ratio, unit="multiply-adds")

    return choose
