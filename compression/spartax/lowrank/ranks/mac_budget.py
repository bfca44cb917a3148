"""MAC budget: all layers share one number of multiply-adds, spent where it retains most."""

from spartax import catalog, checks
from spartax.lowrank.matrices import spectra
from spartax.lowrank.ranks.byte_budget import one_each, prices, spend
from spartax.records import Evidence, Ranks, Weights


def mac_budget(ratio: float = 0.5) -> Ranks:
    """Like `lowrank.byte_budget`, but every number of the factors costs a multiply-add at each place it is used at.

    A kernel with M multiply-adds is used at `M / (m n)` places, so layers with large images are cut most. Counts are of
    the batch that the program was read with; only their ratios matter. Both factors are counted at the places of the
    output: of `lowrank.spatial()` and `lowrank.cp()` with strides the first ones run at more.

    Args:
      ratio: share of the multiply-adds of the selected weights, in [0, 1].

    Raises:
      ValueError: `ratio` outside [0, 1]; at use, a budget too small for rank 1 everywhere, no use of a weight known,
        or a factorization with several ranks a weight.
    """
    checks.in_range("ratio", ratio, 0.0, 1.0)

    def choose(matrices: Weights, evidence: Evidence) -> dict[str, int]:
        uses = catalog.need("uses", evidence)
        one_each(matrices, evidence, "a budget of multiply-adds")
        dense = {path: sum(use.macs for use in uses[path]) for path in matrices}
        unused = [path for path, macs in dense.items() if not macs]
        if unused:
            raise ValueError(
                f"{', '.join(unused)}: nothing is multiplied by it, as by a table that is looked up, or compress was "
                "given no batches, so it has no cost here; leave it out by the rule, or use byte_budget."
            )
        fixed, price, whole = prices(matrices, evidence)
        fixed, price = ({p: part[p] * dense[p] / whole[p] for p in matrices} for part in (fixed, price))
        instead = not evidence.corrections
        return spend(spectra(matrices), price, dense, ratio, unit="multiply-adds", fixed=fixed, instead=instead)

    return choose
