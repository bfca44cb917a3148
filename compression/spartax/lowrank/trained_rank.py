"""Trained rank pruning: weights are truncated again and again while they are trained, so that they become low rank."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from spartax import checks, tree
from spartax.arrays import is_leaf
from spartax.lowrank.factorizations.svd import svd
from spartax.lowrank.matrices import wide
from spartax.records import Array, Evidence, Factorization, Info, Layout, Params, Transform


def trained_rank(kept: float = 0.9, factorization: Factorization | None = None, *, every: int = 20) -> Transform:
    """Every `update` replaces a weight by its nearest matrix of the smallest rank that holds `kept` of its energy.

    `W <- U_r S_r V_r^T`, the smallest r with `sum_{i <= r} s_i^2 >= kept sum_i s_i^2`; between two updates training
    goes on as usual, optionally with `lowrank.nuclear_norm` in the loss. Weights stay dense arrays, so optimizer state
    and compiled steps stay valid; when training is over, `lowrank.factorize` with `lowrank.energy(0.9999)` makes thin
    factors of them. From "Trained Rank Pruning for Efficient Deep Neural Networks" (S022).

    Args:
      kept: share of the squared Frobenius norm, above 0 and at most 1, which leaves the weights as they are.
      factorization: which matrix a weight is: `lowrank.svd()` (channels) if left out, or `lowrank.spatial()`.
      every: steps of a training loop between two updates, 1 to 50; an SVD of every weight is not free.

    Raises:
      ValueError: `kept` not in (0, 1]; `every` below one; a factorization with needs; at use, a compressed weight or
        one that is not finite.
    """
    checks.positive("kept", kept)
    checks.in_range("kept", kept, 0.0, 1.0)
    checks.positive_int("every", every)
    view = factorization or svd()
    if view.needs:
        raise ValueError(f"factorization must need no statistics here; it needs {', '.join(sorted(view.needs))}.")

    def init(params: Params, evidence: Evidence) -> tuple[Params, tuple]:
        for path, weight in tree.pick(params, evidence.layouts).items():
            if is_leaf(weight):
                raise ValueError(f"{path}: trained_rank works on dense weights; got a {type(weight).__name__}.")
        return params, ()

    def update(params: Params, state: tuple, evidence: Evidence) -> tuple[Params, tuple, Info]:
        new, info = {}, {}
        for path, weight in tree.pick(params, evidence.layouts).items():
            checks.finite(path, weight)
            matrices = view.unfold(weight, evidence.layouts[path])
            if set(matrices) != {""}:
                info[path] = {"method": "trained_rank", "skipped": "not one matrix under this factorization"}
                continue
            new[path], ranks = _project(view.unfold, evidence.layouts[path], kept, weight)
            info[path] = {"method": "trained_rank", "rank": int(jnp.max(ranks))}
        return tree.replace(params, new), state, info

    return Transform(frozenset(), init, update, due=lambda step: step % every == 0)


@jax.jit(static_argnums=(0, 1, 2))
def _project(unfold: Callable, layout: Layout, kept: float, weight: Array) -> tuple[Array, Array]:
    """The truncated weight, and the rank of each layer of its stack."""
    view = lambda w: unfold(w, layout)[""]  # noqa: E731
    matrix, fold = view(weight), jax.linear_transpose(view, weight)  # a rearrangement: its transpose is its inverse
    near, ranks = truncate(matrix, kept)
    return fold(near)[0], ranks


def truncate(matrix: Array, kept: float) -> tuple[Array, Array]:
    """`[*stack, m, n]` matrices of the smallest rank that holds `kept` of their energy, and these ranks `[*stack]`."""
    u, s, vt = jnp.linalg.svd(wide(matrix), full_matrices=False)
    chosen = leading(s, kept)
    near = jnp.matmul(u * jnp.where(chosen, s, 0)[..., None, :], vt, precision=lax.Precision.HIGHEST)
    return near.astype(matrix.dtype), jnp.sum(chosen, axis=-1)


def leading(values: Array, kept: float) -> Array:
    """Which singular values (largest first) are needed to hold `kept` of the sum of their squares, bool."""
    energy = jnp.square(values)
    before = jnp.cumsum(energy, axis=-1) - energy
    # kept = 1 keeps all: the running sum may round to the total early
    return (before < kept * jnp.sum(energy, axis=-1, keepdims=True)) | (kept == 1.0)


def nuclear_norm(weights: dict[str, Any], layouts: dict[str, Layout], kept: float = 0.9) -> Array:
    """Sum of the leading singular values of all weights; its gradient is `U_r V_r^T`, the sub-gradient of S022.

    Args:
      weights: path -> dense weight.
      layouts: path -> axes; weights that are no matrix in memory are left out.
      kept: which singular values lead, as in `trained_rank`.

    Returns:
      A scalar to add to a loss, times about 3e-4.
    """
    matrices = [m for path, w in weights.items() for m in svd().unfold(w, layouts[path]).values()]
    return sum((_leading_sum(m, kept) for m in matrices), start=jnp.zeros(()))


def _leading_sum(matrix: Array, kept: float) -> Array:
    u, s, vt = jnp.linalg.svd(wide(lax.stop_gradient(matrix)), full_matrices=False)
    slope = jnp.matmul(u * leading(s, kept)[..., None, :], vt, precision=lax.Precision.HIGHEST)
    return jnp.sum(slope * matrix)  # equals the sum of the leading values, and has the right derivative
