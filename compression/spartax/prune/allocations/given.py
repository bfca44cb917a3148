"""Given: ratios that were found elsewhere."""

from collections.abc import Mapping

from spartax import checks
from spartax.prune.allocations._by_shape import ByShape
from spartax.records import Allocation, Evidence, Path, Weights


def given(sparsities: Mapping[Path, float]) -> Allocation:
    """`keep_l = round((1 - s_l) n_l)` with the sparsity `s_l` given for the path or for the longest prefix of it.

    A prefix ends at a "/": `{"block1": 0.5, "block1/conv2/kernel": 0.9}`. What is under none of them gets the sparsity
    of `prune`.

    Args:
      sparsities: removed fraction by path or prefix.

    Raises:
      ValueError: nothing given, or a sparsity outside [0, 1]; at use, a path or prefix that no weight has.
    """
    if not sparsities:
        raise ValueError("sparsities must hold at least one path.")
    for path, value in sparsities.items():
        checks.in_range(f"sparsities[{path!r}]", value, 0.0, 1.0)

    def allocate(scores: Weights, sparsity: float, evidence: Evidence) -> dict[Path, int]:
        del evidence
        prefixes = {path: ["/".join(path.split("/")[:i]) for i in range(path.count("/") + 1, 0, -1)] for path in scores}
        for known in sparsities:
            checks.one_of("sparsities", known, sorted({p for each in prefixes.values() for p in each}))
        own = {p: next((sparsities[k] for k in each if k in sparsities), sparsity) for p, each in prefixes.items()}
        return {path: round((1 - own[path]) * score.size) for path, score in scores.items()}

    return ByShape(allocate)
