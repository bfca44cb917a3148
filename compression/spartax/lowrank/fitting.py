"""What `factorize` and `compensate` share: ranks for all weights, then factors where they are smaller."""

import math
import operator
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spartax import catalog, checks
from spartax.arrays import dense, nbytes
from spartax.lowrank.matrices import shortened, split_axes
from spartax.records import Array, Evidence, Factorization, Layout, Path, Ranks, Weights

GROWS = "factors would take at least as many bytes as the dense weight, or the rank rule left it out"
NO_MATRIX = "its contracted axes are neither the first nor the last ones, so it is no matrix"
OTHER_KIND = "not a kind of weight that this factorization splits"

TOGETHER = 2**26  # entries of weights factorized at a time; what decomposes them takes a few times their memory
SETTLED = 1e-3  # share of its norm by which the last round of an iteration may move a weight without a warning
SIZES = ("moments", "magnitudes")  # statistics that are zero only where nothing was seen

Chosen = dict[Path, dict[str, int]]  # for each weight, the rank of each of its unfoldings


def choose(factorization: Factorization, ranks: Ranks, weights: Mapping[Path, Array], evidence: Evidence) -> Chosen:
    """The ranks of every weight that is worth factorizing: its factors take fewer bytes than it does.

    Raises:
      ValueError: no weight of a kind that is split; a rank that is no positive integer, above the smaller side of its
        matrix, or above what the evidence tells apart; statistics that are not finite, or zero everywhere.
    """
    unfolded = {path: factorization.unfold(w, evidence.layouts[path]) for path, w in weights.items()}
    if unfolded and not any(unfolded.values()):
        each = "; ".join(f"{p}: {_why_not(w, evidence.layouts[p])}" for p, w in weights.items())
        raise ValueError(f"no weight can be factorized. {each}.")
    matrices = {_name(path, part): m for path, parts in unfolded.items() for part, m in parts.items()}
    found = ranks(matrices, _told(factorization, weights, unfolded, evidence)) if matrices else {}
    for name, rank in found.items():
        checks.one_of("ranks: the name of a matrix", name, sorted(matrices))
        rows, columns = matrices[name].shape[-2:]
        most = min(rows, columns)
        if not isinstance(rank, int | np.integer) or not 1 <= rank <= most:
            raise ValueError(f"{name}: rank must be from 1 to {most} for a {rows} x {columns} matrix; got {rank}.")
    complete = {p: parts for p, parts in unfolded.items() if parts and all(_name(p, part) in found for part in parts)}
    chosen = {path: {part: found[_name(path, part)] for part in parts} for path, parts in complete.items()}
    chosen = {path: r for path, r in chosen.items() if _smaller(factorization, path, weights[path], r, evidence)}
    for path, own in chosen.items():
        _sound(factorization, path, weights[path], own, evidence)
    return chosen


def _told(
    factorization: Factorization, weights: Mapping[Path, Array], unfolded: Mapping[Path, Weights], evidence: Evidence
) -> Evidence:
    """The evidence with what a direction costs, and the network as a function of matrices, as the rule has them."""
    single = {path: parts[""] for path, parts in unfolded.items() if set(parts) == {""}}
    known: dict[Any, tuple[float, float, float]] = {}
    prices = {}
    for path in single:
        kind = (evidence.layouts[path], weights[path].shape, weights[path].dtype)
        if kind not in known:
            known[kind] = _price(factorization, path, weights[path], single[path], evidence)
        prices[path] = known[kind]
    told = evidence._replace(prices=prices)
    if evidence.objective is None or evidence.originals is None:
        return told
    folds = {p: jax.linear_transpose(_view(factorization, evidence.layouts[p]), weights[p]) for p in single}

    def logits(given: Weights, x: Array) -> Array:
        whole = {path: folds[path](jnp.asarray(w))[0] if path in folds else w for path, w in given.items()}
        return evidence.objective.logits(whole, x)

    originals = {
        p: _view(factorization, evidence.layouts[p])(w) if p in single else w for p, w in evidence.originals.items()
    }
    return told._replace(objective=evidence.objective._replace(logits=logits), originals=originals)


def _view(factorization: Factorization, layout: Layout) -> Callable[[Array], Array]:
    """A weight as its one matrix: a rearrangement, whose transpose is its inverse."""
    return lambda weight: factorization.unfold(weight, layout)[""]


def _price(
    factorization: Factorization, path: Path, weight: Array, matrix: Array, evidence: Evidence
) -> tuple[float, float, float]:
    """Bytes of the factors at any rank, of one direction, and of the dense weight."""
    most = min(2, *matrix.shape[-2:])
    sizes = [nbytes(_shape(factorization, path, weight, {"": rank}, evidence)) for rank in range(1, most + 1)]
    direction = sizes[-1] - sizes[0] if most == 2 else sizes[0]
    return sizes[0] - direction, direction, nbytes(weight)


def needs(factorization: Factorization, ranks: Ranks) -> frozenset[str]:
    """What both need of the evidence."""
    return factorization.needs | getattr(ranks, "needs", frozenset())


def _name(path: Path, part: str) -> str:
    return f"{path}#{part}" if part else path


def _smaller(
    factorization: Factorization, path: Path, weight: Array, ranks: dict[str, int], evidence: Evidence
) -> bool:
    return nbytes(_shape(factorization, path, weight, ranks, evidence)) < nbytes(weight)


def _shape(factorization: Factorization, path: Path, weight: Array, ranks: dict[str, int], evidence: Evidence) -> Any:
    given, layout = statistics(factorization, path, evidence), evidence.layouts[path]
    return jax.eval_shape(lambda w, s: factorization.build(w, layout, ranks, s), weight, given)


def statistics(factorization: Factorization, path: Path, evidence: Evidence) -> dict[str, Array]:
    """The evidence of one weight; a key is folded with its path."""
    given = {need: catalog.need(need, evidence) for need in factorization.needs}
    if "means" in given and not factorization.centred and path not in (evidence.biases or {}):  # nobody gives it back
        given["means"] = {**given["means"], path: jnp.zeros_like(given["means"][path])}
    keyed = {"key": jax.random.fold_in(given.pop("key"), zlib.crc32(path.encode()))} if "key" in given else {}
    return {**{need: values[path] for need, values in given.items()}, **keyed}


def _sound(factorization: Factorization, path: Path, weight: Array, ranks: dict[str, int], evidence: Evidence) -> None:
    """Refuse statistics that say nothing, or too little for these ranks."""
    given = statistics(factorization, path, evidence)
    for need, value in given.items():
        if need != "key":
            checks.finite(f"{path}: the {need} of its inputs", value)
        if need in SIZES:
            checks.nonzero(f"{path}: the {need} of its inputs", [value])
    if factorization.span is None or not all(checks.is_concrete(value) for value in given.values()):
        return
    spanned, rank = factorization.span(weight, evidence.layouts[path], given), max(ranks.values())
    known = rank if spanned is None else int(jnp.min(spanned))
    if rank > known:
        raise ValueError(
            f"{path}: rank {rank} is above the {known} directions that its calibration inputs span; give more batches, "
            "a smaller rank, or a factorization with damping."
        )


def build(
    factorization: Factorization, weights: Mapping[Path, Array], chosen: Chosen, evidence: Evidence
) -> dict[Path, Any]:
    """The factors of all chosen weights; those of one shape and layout (unless nested, of one rank) in one program."""
    alike: dict[Any, list[Path]] = {}
    for path, ranks in chosen.items():
        own = None if factorization.nested else tuple(ranks.items())
        kind = (evidence.layouts[path], weights[path].shape, weights[path].dtype, own)
        alike.setdefault(kind, []).append(path)
    made: dict[Path, Any] = {}
    for paths in alike.values():
        layout, most = evidence.layouts[paths[0]], max((chosen[path] for path in paths), key=lambda r: max(r.values()))
        for part, count in _parts(paths, max(1, TOGETHER // math.prod(weights[paths[0]].shape))):
            full = part + part[-1:] * (count - len(part))
            given = [statistics(factorization, path, evidence) for path in full]
            leaves, sound = _build(factorization, layout, tuple(most.items()), [weights[path] for path in full], given)
            _refuse_broken(part, sound)
            made |= {path: _cut(leaf, chosen[path], most) for path, leaf in zip(part, leaves)}
    return {path: made[path] for path in chosen}


def _refuse_broken(paths: list[Path], sound: list[Array]) -> None:
    for path, good in zip(paths, sound):
        if checks.is_concrete(good) and not bool(good):
            raise ValueError(
                f"{path}: its factors hold NaN or infinite values, though the weight does not; another factorization, "
                "a smaller rank, or more of a ridge or damping where the factorization has one, may do."
            )


def unsettled(
    factorization: Factorization, weights: Mapping[Path, Array], leaves: Mapping[Path, Any], evidence: Evidence
) -> dict[Path, float]:
    """How far one more round would move each leaf, relative to its weight, where that is not little."""
    if factorization.moving is None:
        return {}
    moving = jax.jit(factorization.moving, static_argnums=1)
    moved = {path: moving(weights[path], evidence.layouts[path], leaf) for path, leaf in leaves.items()}
    known = {path: float(value) for path, value in moved.items() if checks.is_concrete(value)}
    least = {path: max(SETTLED, 4 * float(jnp.finfo(weights[path].dtype).eps)) for path in known}
    return {path: value for path, value in known.items() if not value <= least[path]}


def _parts(paths: list[Path], most: int) -> list[tuple[list[Path], int]]:
    """The paths in even parts of at most `most`, and the length that the last one is filled up to: one program."""
    count = math.ceil(len(paths) / math.ceil(len(paths) / most))
    return [(paths[i : i + count], count) for i in range(0, len(paths), count)]


@jax.jit(static_argnums=(0, 1, 2))
def _build(
    factorization: Factorization, layout: Layout, ranks: tuple, weights: list[Array], given: list[dict[str, Array]]
) -> tuple[list[Any], list[Array]]:
    """The leaves, and whether each is finite."""
    one = lambda weight, statistics: factorization.build(weight, layout, dict(ranks), statistics)  # noqa: E731
    if len(weights) == 1:
        leaves = [one(weights[0], given[0])]
    else:
        made = jax.vmap(one)(jnp.stack(weights), jax.tree.map(lambda *values: jnp.stack(values), *given))
        leaves = [jax.tree.map(operator.itemgetter(i), made) for i in range(len(weights))]
    return leaves, [_is_finite(leaf) for leaf in leaves]


def _is_finite(leaf: Any) -> Array:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(part)) for part in jax.tree.leaves(leaf)]))


def _cut(leaf: Any, ranks: dict[str, int], built: dict[str, int]) -> Any:
    return leaf if ranks == built else shortened(leaf, ranks[""])


def report(
    method: str, ranks: dict[str, int], weight: Any, before: Array | None, moved: float | None = None
) -> dict[str, Any]:
    """What was done to one weight; the error is relative to the dense weight before any transform."""
    done: dict[str, Any] = {"method": method, "rank": ranks[""] if set(ranks) == {""} else ranks}
    if before is not None:
        done["relative_error"] = float(_relative_error(weight, before))
    if moved is not None:
        share = f"{100 * moved:.2g} %"
        done["warning"] = f"not settled: one more round moves the weight by {share} of its norm; more rounds may do"
    return done


@jax.jit
def _relative_error(weight: Any, before: Array) -> Array:
    largest = jnp.max(jnp.abs(before), initial=0).astype(jnp.float32)  # squares of what it divides stay in range
    scaled = (x.astype(jnp.float32) / jnp.where(largest > 0, largest, 1) for x in (dense(weight) - before, before))
    error, size = map(jnp.linalg.norm, scaled)
    return error / jnp.maximum(size, np.finfo(np.float32).tiny)


def skipped(method: str, factorization: Factorization, weight: Array, layout: Layout) -> dict[str, Any]:
    """Why a weight got no factors."""
    why = GROWS if factorization.unfold(weight, layout) else _why_not(weight, layout)
    return {"method": method, "skipped": why}


def _why_not(weight: Array, layout: Layout) -> str:
    if layout.groups > 1:
        return f"a convolution of {layout.groups} groups, which this factorization does not split"
    return OTHER_KIND if split_axes(weight.shape, layout) else NO_MATRIX
