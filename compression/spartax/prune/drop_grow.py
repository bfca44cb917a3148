"""Sparse training that moves: every few steps some weights are dropped and as many grow elsewhere."""

import functools
import math
from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp

from spartax import catalog, checks, tree
from spartax.arrays import Masked, is_leaf
from spartax.kernels import threshold
from spartax.prune.allocations.erk import erk
from spartax.prune.criteria.random import random
from spartax.prune.health import refuse_empty, report
from spartax.prune.masks import exchange, mine
from spartax.records import Allocation, Array, Evidence, Info, Params, Path, Transform, Weights

Growth = Callable[[Weights, Evidence], Weights]  # where to grow: one score per entry, higher first
Counts = dict[Path, int]  # kept entries of every weight: the state


def drop_grow(
    method: str,
    growth: Growth,
    needs: Collection[str],
    sparsity: float,
    allocation: Allocation | None,
    fraction: float,
    every: int,
    end: int,
) -> Transform:
    """The transform of `rigl` and `sparse_evolution`, which differ in where weights grow.

    `init` draws random masks; `update` drops the `int(f n)` smallest of the `n` kept entries of each weight and grows
    as many where `growth` is largest, `f = cosine(fraction, end, step)`. Counts never change.
    """
    check(sparsity, fraction, every, end)
    allocation = allocation or erk()

    def init(params: Params, evidence: Evidence) -> tuple[Params, Counts]:
        return drawn(method, params, evidence, sparsity, allocation)

    def update(params: Params, state: Counts, evidence: Evidence) -> tuple[Params, Counts, Info]:
        catalog.require(needs, evidence)
        share = cosine(fraction, end, int(catalog.need("step", evidence)))
        weights = tree.pick(params, state)
        old = {path: mine(w, 0) for path, w in weights.items()}
        wanted = growth({path: leaf.weight for path, leaf in old.items()}, evidence)
        for path, score in wanted.items():
            checks.finite(f"the growth of {path}", score)
        moved = {path: int(share * state[path]) for path in old}
        new = {path: move(leaf, wanted[path], moved[path], moved[path]) for path, leaf in old.items()}
        info = report({p: x.mask for p, x in new.items()}, new, evidence, method)
        info = {path: {**entry, "moved": moved[path]} for path, entry in info.items()}
        put = {path: exchange(w, 0, new[path]) for path, w in weights.items()}
        return tree.replace(params, put), state, info

    return Transform(frozenset({*needs, "key", "step"}), init, update, due=functools.partial(is_due, every, end))


def check(sparsity: float, fraction: float, every: int, end: int) -> None:
    """The options of sparse training."""
    checks.in_range("sparsity", sparsity, 0.0, 1.0, open_high=True)
    checks.in_range("fraction", fraction, 0.0, 1.0)
    checks.positive_int("every", every)
    checks.positive_int("end", end)


def is_due(every: int, end: int, step: int) -> bool:
    """Every few steps, from the first of them until the end."""
    return 0 < step < end and step % every == 0


def drawn(
    method: str, params: Params, evidence: Evidence, sparsity: float, allocation: Allocation
) -> tuple[Params, Counts]:
    """The params under random masks, and how many entries each of them keeps."""
    weights = {path: _plain(method, path, w) for path, w in tree.pick(params, evidence.layouts).items()}
    scores = random().score(weights, evidence)
    counts = allocation(scores, sparsity, evidence)
    refuse_empty(counts)
    masked = {path: Masked(w, threshold.top(scores[path], counts[path])) for path, w in weights.items()}
    return tree.replace(params, masked), counts


def cosine(fraction: float, end: int, step: int) -> float:
    """`fraction / 2 (1 + cos(pi step / end))`: the part of the weights that moves, zero from `end` on."""
    return 0.0 if step >= end else fraction / 2 * (1 + math.cos(math.pi * step / end))


@jax.jit
def move(leaf: Masked, growth: Array, dropped: Array | int, grown: Array | int) -> Masked:
    """Drop the `dropped` kept entries of least magnitude, then grow the `grown` entries with the largest `growth`.

    Only what is left after the drop is out of reach of the growth: an entry that was just dropped may grow again, and
    then keeps its value; any other grows from zero. All ties go to the lowest flat index.
    """
    weight, mask = leaf.weight, leaf.mask
    size = jnp.abs(weight).astype(jnp.promote_types(weight.dtype, jnp.float32))
    kept = threshold.top(jnp.where(mask, size, -1.0), jnp.sum(mask) - dropped)
    new = threshold.top(jnp.where(kept, -jnp.inf, growth), grown)
    return Masked(jnp.where(new & ~mask, 0, weight).astype(weight.dtype), kept | new)


def _plain(method: str, path: Path, weight: Any) -> Array:
    if is_leaf(weight):
        raise ValueError(f"{path}: {method} trains plain arrays; got a {type(weight).__name__}.")
    return weight
