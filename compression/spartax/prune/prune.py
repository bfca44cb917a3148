"""`prune`: a criterion, an allocation and a pattern joined into one transform."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from spartax import catalog, checks, tree
from spartax.arrays import Masked, dense, is_leaf
from spartax.prune.alive import alive, at_most
from spartax.prune.allocations.pooled import pooled
from spartax.prune.allocations.uniform import uniform
from spartax.prune.foreseen import REMEDY, refuse_misfits
from spartax.prune.health import refuse_empty, report
from spartax.prune.masks import depth_of, exchange, mine
from spartax.prune.patterns.unstructured import unstructured
from spartax.prune.schedules.one_shot import one_shot
from spartax.prune.whole import whole
from spartax.records import (
    Allocation,
    Array,
    Criterion,
    Evidence,
    Finish,
    Info,
    Params,
    Path,
    Pattern,
    Schedule,
    Transform,
    Weights,
)


def prune(
    criterion: Criterion,
    sparsity: float | None = None,
    allocation: Allocation | None = None,
    pattern: Pattern | None = None,
    schedule: Schedule | None = None,
    *,
    regrow: bool = True,
    allow_empty: bool = False,
) -> Transform:
    """Switch off the entries with the lowest scores: each selected weight becomes `Masked(weight, mask)`.

    `init` keeps everything; `update` scores the weights under their masks (a removed entry may come back), lets the
    allocation say how many each weight keeps, and the pattern which. Under a pattern of whole units (blocks, channels)
    the allocation ranks the scores of units, and counts become whole units, together at most what was asked for.
    Weights that were compressed before stay so under the mask: pruning a `Quantized` gives `Masked(Quantized)`. A
    criterion with `solve` also moves the entries that are kept, which codes and factors do not allow.

    Args:
      criterion: which weights matter, such as `prune.magnitude()`.
      sparsity: removed fraction, in [0, 1); 0.9 when left out, or what the pattern fixes.
      allocation: how many each weight keeps; `prune.pooled()` when left out, `prune.uniform()` under a pattern that
        fixes the fraction.
      pattern: which entries can go together; `prune.unstructured()` when left out.
      schedule: the sparsity at each training step; `prune.one_shot()` when left out. Outside training it is final.
      regrow: whether an entry that was removed may come back; if not, the criterion sees it as zero, it ranks behind
        all that are left, and what an allocation asks for beyond those goes to weights that have room.
      allow_empty: whether a weight may lose all its entries.

    Raises:
      ValueError: sparsity outside [0, 1), or not what the pattern fixes, `regrow=False` with a criterion that moves
        weights; at use, a weight that the pattern does not fit, fewer kept entries than weights, scores that are not
        finite, scores, counts or masks that do not fit the weights, a weight left with no entries, or a compressed one
        that the criterion would move or the schedule set to zero.

    Example:
      >>> import jax.numpy as jnp
      >>> import spartax as sx
      >>> from spartax import prune
      >>> apply = lambda params, x: x @ params["kernel"]
      >>> params = {"kernel": jnp.arange(8.0).reshape(4, 2) - 3}
      >>> two_of_four = prune.prune(prune.magnitude(), pattern=prune.n_of_m(2, 4))
      >>> out = sx.compress(apply, params, two_of_four, batches=[jnp.ones((1, 4))])
      >>> sx.dense(out.params)["kernel"].T.tolist()
      [[-3.0, 0.0, 0.0, 3.0], [-2.0, 0.0, 0.0, 4.0]]
    """
    pattern = pattern or unstructured()
    fixed = getattr(pattern, "sparsity", None)
    allocation = allocation or (pooled() if fixed is None else uniform())
    schedule = schedule or one_shot()
    sparsity = (0.9 if fixed is None else fixed) if sparsity is None else sparsity
    checks.in_range("sparsity", sparsity, 0.0, 1.0, open_high=True)
    if fixed is not None and abs(sparsity - fixed) > 1e-9:
        raise ValueError(f"sparsity must be {fixed}, which the pattern fixes; got {sparsity}.")
    if not regrow and criterion.solve is not None:
        raise ValueError("regrow must be True for a criterion that moves the weights it keeps; got False.")
    needs = criterion.needs | getattr(allocation, "needs", frozenset())
    choices = _Choices(criterion, sparsity, allocation, pattern, regrow, allow_empty)

    def check(params: Params, evidence: Evidence) -> None:
        weights = tree.pick(params, evidence.layouts)
        refuse_misfits(allocation, pattern, weights, sparsity, evidence, allow_empty)

    def init(params: Params, evidence: Evidence) -> tuple[Params, dict[Path, int]]:
        check(params, evidence)
        weights = tree.pick(params, evidence.layouts)
        kept = {path: _full(w) for path, w in weights.items()}
        return tree.replace(params, kept), {path: depth_of(w) for path, w in weights.items()}

    def update(params: Params, state: dict[Path, int], evidence: Evidence) -> tuple[Params, dict[Path, int], Info]:
        catalog.require(needs, evidence)
        found = {path: mine(w, state[path]) for path, w in tree.pick(params, state).items()}
        if schedule.forgets:
            found = {path: _named(path, _forgotten, leaf) for path, leaf in found.items()}
        target = sparsity if evidence.step is None else schedule.sparsity(sparsity, int(evidence.step))
        pruned = _pruned(choices._replace(sparsity=target), found, evidence)
        new = {path: exchange(w, state[path], pruned[path]) for path, w in tree.pick(params, state).items()}
        return tree.replace(params, new), state, report({p: w.mask for p, w in pruned.items()}, pruned, evidence)

    return Transform(needs, init, update, check, schedule.due)


_dense = jax.jit(dense)


class _Choices(NamedTuple):
    """What `prune` was asked for."""

    criterion: Criterion
    sparsity: float
    allocation: Allocation
    pattern: Pattern
    regrow: bool
    allow_empty: bool


def _pruned(choices: _Choices, found: dict[Path, Masked], evidence: Evidence) -> dict[Path, Masked]:
    """The weights under new masks."""
    if choices.sparsity == 0:
        return {path: _full(leaf.weight) for path, leaf in found.items()}
    inside = {path: leaf.weight for path, leaf in found.items()}
    scores, finish = _ranked(choices.criterion, inside, inside if choices.regrow else found, evidence)
    _check_scores(scores, inside)
    if not choices.regrow:  # in place, since `finish` looks at these
        scores |= {path: _behind(score, found[path].mask) for path, score in scores.items()}
    most = None if choices.regrow else alive(scores)
    counts = allocated(choices.allocation, choices.pattern, scores, choices.sparsity, evidence, most)
    if not choices.allow_empty:
        refuse_empty(counts, REMEDY)
    pruned = {path: Masked(*_named(path, finish, path, counts[path], choices.pattern)) for path in inside}
    _check_masks(pruned)
    return pruned


def _full(weight: Any) -> Masked:
    return Masked(weight, jnp.asarray(np.ones(weight.shape, np.bool_)))


def _forgotten(leaf: Masked) -> Masked:
    """The removed entries as zeros."""
    if is_leaf(leaf.weight):
        raise ValueError(
            f"this schedule sets removed entries to zero; a {type(leaf.weight).__name__} does not allow it."
        )
    return Masked(_dense(leaf), leaf.mask)


@jax.jit
def _behind(score: Array, mask: Array) -> Array:
    """Removed entries rank behind all others."""
    return jnp.where(mask, score, -jnp.inf)


def _ranked(criterion: Criterion, inside: Weights, seen: Weights, evidence: Evidence) -> tuple[Weights, Finish]:
    """The scores of the weights as they are `seen`, and how one is finished: by the criterion, or the pattern alone."""
    weights = {path: _dense(w) if is_leaf(w) else w for path, w in seen.items()}  # `jit` would copy a plain array
    if criterion.solve is not None:
        for path, w in inside.items():
            if is_leaf(w):
                raise ValueError(
                    f"{path}: this criterion moves the weights it keeps, and a {type(w).__name__} is fixed already; "
                    "prune first, then compress further."
                )
        return criterion.solve(weights, evidence)
    scores = dict(criterion.score(weights, evidence))
    # a score is let go as soon as its mask is there
    return scores, lambda path, keep, pattern: (inside[path], pattern(scores.pop(path), keep, evidence.layouts[path]))


def _named(path: Path, function: Callable[..., Any], *args: Any) -> Any:
    """The result of the function, with the path in front of its errors."""
    try:
        return function(*args)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def allocated(
    allocation: Allocation,
    pattern: Pattern,
    scores: Weights,
    sparsity: float,
    evidence: Evidence,
    most: Mapping[Path, int] | None = None,
) -> dict[Path, int]:
    """Kept counts; under a pattern of whole units from the scores of units, and in whole units.

    `most` entries may be kept of each weight, all when left out; the scores of the others are minus infinity.
    """
    unit, spread = getattr(pattern, "unit", None), getattr(pattern, "spread", None)
    sizes, layouts = {p: s.size for p, s in scores.items()}, evidence.layouts
    most = sizes if most is None else most
    ranked = scores if spread is None else {p: spread(s, layouts[p]) for p, s in scores.items()}
    counts = at_most(_check_counts(allocation(ranked, sparsity, evidence), sizes), most, sizes)
    return counts if unit is None else whole(counts, {p: unit(s.shape, layouts[p]) for p, s in scores.items()}, most)


def _check_scores(scores: Weights, weights: Weights) -> None:
    if set(scores) != set(weights):
        raise ValueError(f"the criterion must score {sorted(weights)}; got {sorted(scores)}.")
    for path, score in scores.items():
        if tuple(score.shape) != tuple(weights[path].shape):
            raise ValueError(f"the score of {path} must have shape {weights[path].shape}; got {score.shape}.")
        checks.finite(f"the score of {path}", score)


def _check_counts(counts: dict[Path, int], sizes: Mapping[Path, int]) -> dict[Path, int]:
    if set(counts) != set(sizes):
        raise ValueError(f"the allocation must count {sorted(sizes)}; got {sorted(counts)}.")
    for path, keep in counts.items():
        if not 0 <= keep <= sizes[path]:
            raise ValueError(f"the allocation must keep 0 to {sizes[path]} entries of {path}; got {keep}.")
    return counts


def _check_masks(pruned: Mapping[Path, Masked]) -> None:
    for path, leaf in pruned.items():
        if leaf.mask.shape != tuple(leaf.weight.shape) or leaf.mask.dtype != jnp.bool_:
            raise ValueError(
                f"the mask of {path} must be bool{tuple(leaf.weight.shape)}; got {leaf.mask.dtype}{leaf.mask.shape}."
            )
