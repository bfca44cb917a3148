"""Robust ADMM pruning: weights pulled to the nearest sparse ones while adversarial training moves them."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from spartax import checks, tree
from spartax.arrays import Pulled, is_leaf
from spartax.arrays.pulled import pulled
from spartax.prune.allocations.uniform import uniform
from spartax.prune.health import refuse_empty
from spartax.prune.patterns.unstructured import unstructured
from spartax.prune.prune import allocated
from spartax.records import Allocation, Array, Evidence, Info, Params, Path, Pattern, Transform, Weights


def radmm(
    sparsity: float = 0.9,
    allocation: Allocation | None = None,
    pattern: Pattern | None = None,
    *,
    every: int = 100,
) -> Transform:
    """`min L(W)` under `W sparse`, split in two: the loss trains `W`, a projection makes `Z` sparse, `U` joins them.

    Each weight becomes `Pulled`, whose point is `Z - U`; under `train.radmm(loss, rho)` training lowers
    `L(W) + rho/2 |W - Z + U|^2`, and every few steps `Z <- P(W + U)`, `U <- U + W - Z`, where P keeps the largest
    entries. It begins at `Z = P(W)`, `U = 0`. The stages of the paper, under one adversarial loss:

    1. train the dense network;
    2. train with this transform, `rho` rising, until W and Z agree (`"residual"` in the info, `|W - Z| / |W|`);
       to begin anew for each rho restarts U at 0, where to go on would take U times the old rho over the new: U is the
       multiplier of `W = Z` divided by rho;
    3. `prune.finish(params)`, `prune.prune(prune.magnitude(), sparsity, prune.uniform())` with the same choices, which
       is P, and the same loss trains the weights that are left.

    See Ye et al., Adversarial Robustness vs. Model Compression, or Both? (arXiv 1903.12561).

    Args:
      sparsity: removed fraction, in [0, 1).
      allocation: how many entries each weight keeps; `prune.uniform()` when left out.
      pattern: which can go together; `prune.unstructured()` when left out.
      every: training steps between two projections; the first is `init`.

    Raises:
      ValueError: numbers out of range; at use, a weight that is compressed already or left with no entries.
    """
    checks.in_range("sparsity", sparsity, 0.0, 1.0, open_high=True)
    checks.positive_int("every", every)
    allocation, pattern = allocation or uniform(), pattern or unstructured()

    def nearest(sums: Weights, evidence: Evidence) -> Weights:
        """P."""
        sizes = {path: jnp.abs(x) for path, x in sums.items()}
        counts = allocated(allocation, pattern, sizes, sparsity, evidence)
        refuse_empty(counts)
        keeps = {path: pattern(sizes[path], counts[path], evidence.layouts[path]) for path in sums}
        return {path: jnp.where(keeps[path], sums[path], 0.0) for path in sums}

    def init(params: Params, evidence: Evidence) -> tuple[Params, Weights]:
        weights = {path: _plain(path, w) for path, w in tree.pick(params, evidence.layouts).items()}
        points = nearest(weights, evidence)
        new = {path: pulled(w, points[path]) for path, w in weights.items()}
        return tree.replace(params, new), {path: jnp.zeros_like(points[path]) for path in weights}

    def update(params: Params, state: Weights, evidence: Evidence) -> tuple[Params, Weights, Info]:
        weights = tree.pick(params, evidence.layouts)
        own = {path: tree.inner(path, w, Pulled, "Pulled").weight for path, w in weights.items()}
        points = nearest({path: w + state[path] for path, w in own.items()}, evidence)
        duals = {path: state[path] + w - points[path] for path, w in own.items()}
        new = {path: pulled(w, points[path] - duals[path]) for path, w in own.items()}
        put = {path: tree.exchanged(w, new[path]) for path, w in weights.items()}
        return tree.replace(params, put), duals, {path: _told(own[path], points[path]) for path in own}

    needs = getattr(allocation, "needs", frozenset())
    return Transform(needs, init, update, due=lambda step: step > 0 and step % every == 0)


def _plain(path: Path, weight: Any) -> Array:
    if is_leaf(weight):
        raise ValueError(f"{path}: radmm trains plain arrays; got a {type(weight).__name__}.")
    return weight


def _told(weight: Array, point: Array) -> dict[str, Any]:
    away, kept = _compared(weight, point)
    size = weight.size
    return {"method": "radmm", "residual": float(away), "size": size, "sparsity": 1 - int(kept) / size}


@jax.jit
def _compared(weight: Array, point: Array) -> tuple[Array, Array]:
    norm = functools.partial(jnp.linalg.norm, axis=None)
    away = norm((weight - point).ravel()) / jnp.maximum(norm(weight.ravel()), 1e-12)
    return away, jnp.sum(point != 0)
