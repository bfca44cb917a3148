"""`factorize`: a factorization and a rule for the ranks joined into one transform."""

from typing import Any

from spartax import tree
from spartax.arrays import LowRank, Masked, dense, is_leaf
from spartax.lowrank import matrices
from spartax.records import Evidence, Factorization, Info, Params, Path, Ranks, Transform


def factorize(factorization: Factorization, ranks: Ranks) -> Transform:
    """Replace each selected weight by two thin factors, `LowRank(left, right)`.

    The rows are the contracted axes when they come first (`[I, O]`, `[H, W, I, O]`), the output axes when those do
    (`[O, I, H, W]`); every layer of a stack is factorized on its own, at one rank. A weight whose factors would take at
    least its own bytes stays dense, and `info` says so. A `Masked` weight becomes factors under the same mask. `init`
    does all the work, as the ranks are shapes; from then on the factors are free to be trained, and `update` only
    reports.

    Args:
      factorization: how a matrix is split, such as `lowrank.svd()`.
      ranks: how many directions each weight keeps, such as `lowrank.fixed(16)`.

    Raises:
      ValueError: at use, a rank above the smaller side of a matrix, or a weight quantized or factorized already.
    """

    def init(params: Params, evidence: Evidence) -> tuple[Params, tuple]:
        weights = tree.pick(params, evidence.layouts)
        arrays = {path: _values(path, w) for path, w in weights.items()}
        chosen = matrices.choose(ranks, arrays, evidence)
        low = {p: matrices.factors(factorization, arrays[p], evidence.layouts[p], r) for p, r in chosen.items()}
        new = {p: Masked(leaf, weights[p].mask) if is_leaf(weights[p]) else leaf for p, leaf in low.items()}
        return tree.replace(params, new), ()

    def update(params: Params, state: tuple, evidence: Evidence) -> tuple[Params, tuple, Info]:
        weights = tree.pick(params, evidence.layouts)
        return params, state, {path: _report(path, w, evidence) for path, w in weights.items()}

    return Transform(frozenset(), init, update)


def _values(path: Path, weight: Any) -> Any:
    if is_leaf(weight) and not isinstance(weight, Masked):
        raise ValueError(
            f"{path}: a {type(weight).__name__} cannot be factorized; factorize first, or add a low-rank correction "
            "with lowrank.compensate."
        )
    return dense(weight) if is_leaf(weight) else weight


def _report(path: Path, weight: Any, evidence: Evidence) -> dict[str, Any]:
    low = matrices.found(weight, lambda x: isinstance(x, LowRank))
    before = None if evidence.originals is None else evidence.originals[path]
    if low is not None:
        return matrices.report("factorize", low.rank, weight, before)
    return {"method": "factorize", "skipped": matrices.why_dense(tuple(weight.shape), evidence.layouts[path])}
