"""`compensate`: a low-rank correction of what another method did to the weights."""

from typing import Any

import jax

from spartax import catalog, tree
from spartax.arrays import LowRank, Sum, dense, is_leaf
from spartax.lowrank import matrices
from spartax.records import Array, Evidence, Factorization, Info, Params, Path, Ranks, Transform

NOT_COMPRESSED = "not compressed: there is no error to compensate"


def compensate(factorization: Factorization, ranks: Ranks) -> Transform:
    """Add a low-rank part to each compressed weight C: `Sum((C, LowRank(W - dense(C))))`.

    W is the dense weight before any transform. With `lowrank.svd()` no other correction of that rank brings the weight
    nearer to W (the data-free case of Liu et al., EoRA, arXiv 2410.21271, and the first half-step of LoftQ, arXiv
    2310.08659). `update` fits the correction anew to C as it is then.

    Args:
      factorization: how the residual is split, such as `lowrank.svd()`.
      ranks: how many directions of the residual each weight gets, such as `lowrank.fixed(8)`.

    Raises:
      ValueError: at use, the originals are missing from the evidence, or a rank above the smaller side of a matrix.
    """

    def residual(path: Path, weight: Any, evidence: Evidence) -> Array:
        return _difference(catalog.need("originals", evidence)[path], weight)

    def init(params: Params, evidence: Evidence) -> tuple[Params, tuple]:
        weights = tree.pick(params, evidence.layouts)
        rest = {path: residual(path, w, evidence) for path, w in weights.items() if is_leaf(w)}
        chosen = matrices.choose(ranks, rest, evidence)
        low = {p: matrices.factors(factorization, rest[p], evidence.layouts[p], r) for p, r in chosen.items()}
        return tree.replace(params, {path: Sum((weights[path], leaf)) for path, leaf in low.items()}), ()

    def update(params: Params, state: tuple, evidence: Evidence) -> tuple[Params, tuple, Info]:

        def refit(path: Path, leaf: Any) -> Any:
            if not _is_corrected(leaf):
                return leaf
            rest = residual(path, leaf.terms[0], evidence)
            low = matrices.factors(factorization, rest, evidence.layouts[path], leaf.terms[1].rank)
            return Sum((leaf.terms[0], low))

        weights = tree.pick(params, evidence.layouts)
        new = {p: jax.tree.map(lambda x, p=p: refit(p, x), w, is_leaf=_is_corrected) for p, w in weights.items()}
        return tree.replace(params, new), state, {path: _report(path, w, evidence) for path, w in new.items()}

    return Transform(frozenset({"originals"}), init, update)


@jax.jit
def _difference(original: Array, weight: Any) -> Array:
    return original - dense(weight)


def _is_corrected(x: Any) -> bool:
    return isinstance(x, Sum) and len(x.terms) == 2 and isinstance(x.terms[1], LowRank)


def _report(path: Path, weight: Any, evidence: Evidence) -> dict[str, Any]:
    corrected = matrices.found(weight, _is_corrected)
    if corrected is not None:
        return matrices.report("compensate", corrected.terms[1].rank, weight, catalog.need("originals", evidence)[path])
    reason = matrices.why_dense(tuple(weight.shape), evidence.layouts[path]) if is_leaf(weight) else NOT_COMPRESSED
    return {"method": "compensate", "skipped": reason}
