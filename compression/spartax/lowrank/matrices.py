"""Weights as matrices: which axes are rows, which are columns, and the way back to a leaf."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from spartax.arrays import LowRank, dense
from spartax.records import Array, Evidence, Factorization, Layout, Path, Ranks, Weights


class Split(NamedTuple):
    """The axes of a weight `[*stack, *rows, *columns]`, by their lengths."""

    stack: tuple[int, ...]
    rows: tuple[int, ...]
    columns: tuple[int, ...]


def split_axes(shape: tuple[int, ...], layout: Layout) -> Split | None:
    """Which axes are rows and which are columns, or None when the weight is no matrix in memory.

    After the stack come either all contracted axes (they are the rows, `[I, O]` and `[H, W, I, O]`) or all output axes
    (`[O, I]` and `[O, I, H, W]`).
    """
    lead = len(layout.stack)
    if set(layout.stack) != set(range(lead)):
        return None
    for rows in (layout.inputs, layout.outputs):
        cut = lead + len(rows)
        if rows and cut < len(shape) and set(rows) == set(range(lead, cut)):
            return Split(shape[:lead], shape[lead:cut], shape[cut:])
    return None


def to_matrix(weight: Array, layout: Layout) -> Array | None:
    """The weight as `[*stack, m, n]`, or None when it is no matrix in memory."""
    split = split_axes(weight.shape, layout)
    return None if split is None else weight.reshape(*split.stack, math.prod(split.rows), math.prod(split.columns))


def factors(factorization: Factorization, weight: Array, layout: Layout, rank: int) -> LowRank:
    """The leaf of rank `rank` in the dtype of the weight; every layer of a stack is factorized on its own."""
    split, matrix = split_axes(weight.shape, layout), to_matrix(weight, layout)
    if split is None or matrix is None:
        raise ValueError(f"a weight of shape {weight.shape} with {layout} is no matrix.")
    one = lambda m: factorization(m, rank)  # noqa: E731
    for _ in split.stack:
        one = jax.vmap(one)
    left, right = one(matrix)
    left = left.reshape(*split.stack, *split.rows, rank).astype(weight.dtype)
    right = right.reshape(*split.stack, rank, *split.columns).astype(weight.dtype)
    return LowRank(left, right, len(split.columns))


def choose(ranks: Ranks, weights: Mapping[Path, Array], evidence: Evidence) -> dict[Path, int]:
    """The rank of every weight that is worth factorizing: its factors take fewer bytes than it does.

    Raises:
      ValueError: a rank that is no positive integer, or above the smaller side of the matrix.
    """
    matrices = {path: to_matrix(w, evidence.layouts[path]) for path, w in weights.items()}
    matrices = {path: m for path, m in matrices.items() if m is not None}
    chosen = ranks(matrices, evidence) if matrices else {}
    for path, rank in chosen.items():
        most = min(matrices[path].shape[-2:])
        if not 1 <= rank <= most:
            rows, columns = matrices[path].shape[-2:]
            raise ValueError(f"{path}: rank must be from 1 to {most} for a {rows} x {columns} matrix; got {rank}.")
    return {path: rank for path, rank in chosen.items() if is_smaller(matrices[path].shape, rank)}


def is_smaller(shape: tuple[int, ...], rank: int) -> bool:
    """Whether factors of this rank hold fewer numbers than the matrix `[*stack, m, n]`."""
    rows, columns = shape[-2:]
    return rank * (rows + columns) < rows * columns


def spectra(matrices: Weights) -> dict[Path, np.ndarray]:
    """Squared singular values of each matrix `[*stack, m, n]`, largest first, summed over the layers of a stack."""
    return {path: np.asarray(_spectrum(matrix), np.float64) for path, matrix in matrices.items()}


@jax.jit
def _spectrum(matrix: Array) -> Array:
    values = jnp.linalg.svd(matrix.astype(jnp.promote_types(matrix.dtype, jnp.float32)), compute_uv=False)
    return jnp.sum(jnp.square(values).reshape(-1, values.shape[-1]), axis=0)


def found(weight: Any, kind: Callable[[Any], bool]) -> Any:
    """The first node of this kind inside a weight, or None."""
    return next((x for x in jax.tree.leaves(weight, is_leaf=kind) if kind(x)), None)


def why_dense(shape: tuple[int, ...], layout: Layout) -> str:
    """Why a weight got no factors."""
    if split_axes(shape, layout) is None:
        return "its contracted axes are neither the first nor the last ones, so it is no matrix"
    return "factors would take at least as many bytes as the dense weight, or the rank rule left it out"


def report(method: str, rank: int, weight: Any, before: Array | None) -> dict[str, Any]:
    """What was done to one weight; the error is relative to the dense weight before any transform."""
    done: dict[str, Any] = {"method": method, "rank": rank}
    if before is not None:
        done["relative_error"] = float(_relative_error(weight, before))
    return done


@jax.jit
def _relative_error(weight: Any, before: Array) -> Array:
    error, size = (jnp.linalg.norm(x.astype(jnp.float32)) for x in (dense(weight) - before, before))
    return error / jnp.maximum(size, jnp.finfo(jnp.float32).tiny)
