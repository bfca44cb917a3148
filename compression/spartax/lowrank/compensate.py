"""`compensate`: a low-rank correction of what another method did to the weights."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from spartax import catalog, checks, tree
from spartax.arrays import Sum, dense, is_leaf, nbytes, pack
from spartax.lowrank import fitting
from spartax.records import Array, Evidence, Factorization, Info, Params, Path, Ranks, Transform, Weights

NOT_COMPRESSED = "not compressed: there is no error to compensate"


class Told(NamedTuple):
    """What is known of the corrections beyond their ranks: how far the last round moved them, and what `then` tells."""

    moved: dict[Path, float]
    then: Info


def compensate(factorization: Factorization, ranks: Ranks, then: Transform | None = None) -> Transform:
    """Add a low-rank part to each compressed weight C: `Sum((C, factors of W - dense(C)))`.

    W is the dense weight before any transform. With `lowrank.whitened()` this is EoRA (S055; Liu et al., arXiv
    2410.21271): of all corrections of that rank it gives the least error of the *output* on the calibration data. With
    `lowrank.svd()` it is the data-free case, the least error of the weight, and the first half-step of LoftQ (arXiv
    2310.08659). `update` fits the correction anew to C as it is then. A dense weight has no error and is left alone; to
    train a low-rank part on it (LoRA), write `Sum((W, LowRank(left, zeros)))`.

    Args:
      factorization: how the residual is split.
      ranks: how many directions of the residual each weight gets, such as `lowrank.fixed(8)`.
      then: a transform for the factors alone, such as `quantize.quantize(quantize.integer(8))`; what it tells of a
        weight is in `info` under `then`. A `warning` names the weights that end up as large as the dense ones.

    Raises:
      ValueError: a rank rule that measures whole weights; at use, the originals or statistics are missing from the
        evidence, a rank above the smaller side of a matrix, or no error at all, as in a second call of `compress` on
        weights that are compressed already.
    """
    _for_errors(ranks)

    def init(params: Params, evidence: Evidence) -> tuple[Params, fitting.Chosen]:
        weights = tree.pick(params, evidence.layouts)
        rest = _residuals({path: w for path, w in weights.items() if is_leaf(w)}, evidence)
        _some_error(rest)
        chosen = fitting.choose(factorization, ranks, rest, evidence._replace(corrections=True))
        return tree.replace(params, corrected({p: weights[p] for p in chosen}, rest, chosen, evidence)[0]), chosen

    def corrected(weights: Weights, rest: Weights, chosen: fitting.Chosen, evidence: Evidence) -> tuple[Weights, Told]:
        low, told = fitting.build(factorization, rest, chosen, evidence), {}
        unsettled = fitting.unsettled(factorization, rest, low, evidence)
        if then is not None and low:
            own = evidence._replace(layouts={path: evidence.layouts[path] for path in low})
            low, state = then.init(low, own)
            low, _, told = then.update(low, state, own)
        return {path: Sum((weights[path], leaf)) for path, leaf in low.items()}, Told(unsettled, told)

    def update(params: Params, state: fitting.Chosen, evidence: Evidence) -> tuple[Params, fitting.Chosen, Info]:
        weights = tree.pick(params, evidence.layouts)
        inner = {path: _corrected(weights[path]).terms[0] for path in state}
        new, told = corrected(inner, _residuals(inner, evidence), state, evidence)
        placed = {path: _replace(weights[path], leaf) for path, leaf in new.items()}
        info = {path: _report(path, w, state, evidence, told) for path, w in {**weights, **placed}.items()}
        return tree.replace(params, placed), state, info

    def _report(path: Path, weight: Any, chosen: fitting.Chosen, evidence: Evidence, told: Told) -> dict[str, Any]:
        if path in chosen:
            before = catalog.need("originals", evidence)[path]
            done = fitting.report("compensate", chosen[path], weight, before, told.moved.get(path))
            return _as_large(weight, before) | done | ({"then": told.then[path]} if path in told.then else {})
        if not is_leaf(weight):
            return {"method": "compensate", "skipped": NOT_COMPRESSED}
        return fitting.skipped("compensate", factorization, dense(weight), evidence.layouts[path])

    needs = frozenset({"originals"}) | fitting.needs(factorization, ranks) | (then.needs if then else frozenset())
    return Transform(needs, init, update)


def _for_errors(ranks: Ranks) -> None:
    if "objective" in getattr(ranks, "needs", ()):
        raise ValueError(
            "ranks must be a rule for errors, such as lowrank.fixed or lowrank.energy; lowrank.sensitivity measures "
            "what the network loses without a whole weight."
        )


def _some_error(rest: Weights) -> None:
    if rest and all(checks.is_concrete(error) and not bool(jnp.any(error)) for error in rest.values()):
        raise ValueError(
            f"{', '.join(rest)}: no error to compensate. Errors are those of transforms in the same call of compress, "
            "which compares with the weights it was given: put compensate behind the others in one call."
        )


def _as_large(weight: Any, before: Array) -> dict[str, str]:
    """A warning where nothing is saved any more; one of the factorization itself takes its place."""
    if not all(checks.is_concrete(x) for x in jax.tree.leaves(weight)):
        return {}
    size = nbytes(pack(weight))
    larger = size >= nbytes(before)
    return {"warning": f"takes {size:,} bytes with its correction, dense {nbytes(before):,}"} if larger else {}


def _residuals(weights: Weights, evidence: Evidence) -> Weights:
    originals = catalog.need("originals", evidence)
    return {path: _difference(originals[path], w) for path, w in weights.items()}


@jax.jit
def _difference(original: Array, weight: Any) -> Array:
    return original - dense(weight)


def _is_corrected(x: Any) -> bool:
    return isinstance(x, Sum) and len(x.terms) == 2


def _corrected(weight: Any) -> Sum:
    """The sum that this transform made, also where a later one wrapped it."""
    return next(x for x in jax.tree.leaves(weight, is_leaf=_is_corrected) if _is_corrected(x))


def _replace(weight: Any, new: Sum) -> Any:
    return jax.tree.map(lambda x: new if _is_corrected(x) else x, weight, is_leaf=_is_corrected)
