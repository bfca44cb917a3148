"""What `factorize` and `compensate` share: ranks for all weights, then factors where they are smaller."""

import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spartax import catalog
from spartax.arrays import dense, nbytes
from spartax.lowrank.matrices import split_axes
from spartax.records import Array, Evidence, Factorization, Layout, Path, Ranks

GROWS = "factors would take at least as many bytes as the dense weight, or the rank rule left it out"
NO_MATRIX = "its contracted axes are neither the first nor the last ones, so it is no matrix"
OTHER_KIND = "not a kind of weight that this factorization splits"

Chosen = dict[Path, dict[str, int]]  # for each weight, the rank of each of its unfoldings


def choose(factorization: Factorization, ranks: Ranks, weights: Mapping[Path, Array], evidence: Evidence) -> Chosen:
    """The ranks of every weight that is worth factorizing: its factors take fewer bytes than it does.

    Raises:
      ValueError: a rank that is no positive integer, or above the smaller side of its matrix.
    """
    unfolded = {path: factorization.unfold(w, evidence.layouts[path]) for path, w in weights.items()}
    matrices = {_name(path, part): m for path, parts in unfolded.items() for part, m in parts.items()}
    found = ranks(matrices, evidence) if matrices else {}
    for name, rank in found.items():
        rows, columns = matrices[name].shape[-2:]
        if not 1 <= rank <= min(rows, columns):
            most = min(rows, columns)
            raise ValueError(f"{name}: rank must be from 1 to {most} for a {rows} x {columns} matrix; got {rank}.")
    complete = {p: parts for p, parts in unfolded.items() if parts and all(_name(p, part) in found for part in parts)}
    chosen = {path: {part: found[_name(path, part)] for part in parts} for path, parts in complete.items()}
    return {path: r for path, r in chosen.items() if _smaller(factorization, path, weights[path], r, evidence)}


def needs(factorization: Factorization, ranks: Ranks) -> frozenset[str]:
    """What both need of the evidence."""
    return factorization.needs | getattr(ranks, "needs", frozenset())


def _name(path: Path, part: str) -> str:
    return f"{path}#{part}" if part else path


def _smaller(
    factorization: Factorization, path: Path, weight: Array, ranks: dict[str, int], evidence: Evidence
) -> bool:
    given = statistics(factorization, path, evidence)
    layout = evidence.layouts[path]
    leaf = jax.eval_shape(lambda w, s: factorization.build(w, layout, ranks, s), weight, given)
    return nbytes(leaf) < nbytes(weight)


def statistics(factorization: Factorization, path: Path, evidence: Evidence) -> dict[str, Array]:
    """The evidence of one weight; a key is folded with its path."""
    given = {need: catalog.need(need, evidence) for need in factorization.needs}
    keyed = {"key": jax.random.fold_in(given.pop("key"), zlib.crc32(path.encode()))} if "key" in given else {}
    return {**{need: values[path] for need, values in given.items()}, **keyed}


def build(factorization: Factorization, path: Path, weight: Array, ranks: dict[str, int], evidence: Evidence) -> Any:
    """The factors of one weight, compiled for each shape."""
    return _build(
        factorization, evidence.layouts[path], tuple(ranks.items()), weight, statistics(factorization, path, evidence)
    )


@jax.jit(static_argnums=(0, 1, 2))
def _build(factorization: Factorization, layout: Layout, ranks: tuple, weight: Array, given: dict[str, Array]) -> Any:
    return factorization.build(weight, layout, dict(ranks), given)


def report(method: str, ranks: dict[str, int], weight: Any, before: Array | None) -> dict[str, Any]:
    """What was done to one weight; the error is relative to the dense weight before any transform."""
    done: dict[str, Any] = {"method": method, "rank": ranks[""] if set(ranks) == {""} else ranks}
    if before is not None:
        done["relative_error"] = float(_relative_error(weight, before))
    return done


@jax.jit
def _relative_error(weight: Any, before: Array) -> Array:
    error, size = (jnp.linalg.norm(x.astype(jnp.float32)) for x in (dense(weight) - before, before))
    return error / jnp.maximum(size, np.finfo(np.float32).tiny)


def skipped(method: str, factorization: Factorization, weight: Array, layout: Layout) -> dict[str, Any]:
    """Why a weight got no factors."""
    if factorization.unfold(weight, layout):
        return {"method": method, "skipped": GROWS}
    return {"method": method, "skipped": OTHER_KIND if split_axes(weight.shape, layout) else NO_MATRIX}
