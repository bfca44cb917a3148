"""What shapes alone say about an allocation and a pattern, before anything is measured."""

import jax
import jax.numpy as jnp

from spartax.prune.health import refuse_empty
from spartax.prune.whole import refuse_too_few, whole
from spartax.records import Allocation, Evidence, Path, Pattern, Weights

REMEDY = "lower the sparsity, give prune.pooled a min_kept, or pass allow_empty=True"


def refuse_misfits(
    allocation: Allocation, pattern: Pattern, weights: Weights, sparsity: float, evidence: Evidence, allow_empty: bool
) -> None:
    """The errors that use would raise whatever the scores are.

    Raises:
      ValueError: what the allocation foresees, a weight left with no entries, fewer kept entries than one of each
        weight (one unit where the pattern has units), a weight or a count that the pattern does not fit.
    """
    shapes = {path: jax.ShapeDtypeStruct(tuple(w.shape), jnp.float32) for path, w in weights.items()}
    foresee = getattr(allocation, "foresee", None) if sparsity > 0 else None
    counts = None if foresee is None else foresee(shapes, sparsity, evidence)
    if counts is not None:
        _refuse_counts(pattern, counts, shapes, evidence, allow_empty)
    elif not allow_empty and getattr(allocation, "fixes_total", True):
        _refuse_total(pattern, sparsity, shapes, evidence)
    fixed = getattr(pattern, "sparsity", None)
    if fixed is None:
        return
    for path, shape in shapes.items():
        _refuse_shape(
            path, pattern, shape, round((1 - fixed) * shape.size) if counts is None else counts[path], evidence
        )
    if foresee is not None and counts is None and len(shapes) > 1:
        raise ValueError(
            f"allocation: the pattern keeps {1 - fixed:g} of every weight, but this allocation shares the entries out "
            "by score; take prune.uniform()."
        )


def _refuse_counts(
    pattern: Pattern, counts: dict[Path, int], shapes: Weights, evidence: Evidence, allow_empty: bool
) -> None:
    if not allow_empty:
        refuse_empty(counts, REMEDY)
    if hasattr(pattern, "unit"):
        whole(counts, _units(pattern, shapes, evidence), {path: shape.size for path, shape in shapes.items()})


def _refuse_total(pattern: Pattern, sparsity: float, shapes: Weights, evidence: Evidence) -> None:
    size = sum(shape.size for shape in shapes.values())
    total = round((1 - sparsity) * size)
    if total < len(shapes):
        raise ValueError(
            f"sparsity {sparsity} keeps fewer entries than there are weights: {size} entries in {len(shapes)} weights; "
            "lower it or pass allow_empty=True."
        )
    units = _units(pattern, shapes, evidence)
    refuse_too_few(total, sum(min(units[path], shape.size) for path, shape in shapes.items()), size)


def _units(pattern: Pattern, shapes: Weights, evidence: Evidence) -> dict[Path, int]:
    """Entries of one unit of every weight."""
    unit = getattr(pattern, "unit", lambda shape, layout: 1)
    return {path: unit(shape.shape, evidence.layouts[path]) for path, shape in shapes.items()}


def _refuse_shape(path: Path, pattern: Pattern, shape: jax.ShapeDtypeStruct, keep: int, evidence: Evidence) -> None:
    try:
        jax.eval_shape(lambda score: pattern(score, keep, evidence.layouts[path]), shape)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
