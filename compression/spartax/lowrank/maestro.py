"""Maestro: ranks that training orders by importance, so that the last ones can be cut off at any time.

The pieces of "Maestro: Uncovering Low-Rank Structures via Trainable Decomposition" (S034): factors of full rank
(`decomposed`), one layer at a time cut at a random rank (`sampled`), a penalty on the tails of the factors
(`group_lasso`), all three in `objective`; `shrink` between epochs, outside jit.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from spartax import checks, tree
from spartax.arrays import LowRank, dense, is_leaf, nbytes
from spartax.lowrank import fitting
from spartax.lowrank.factorizations.svd import svd
from spartax.lowrank.matrices import shortened
from spartax.records import ApplyFn, Array, Evidence, Info, Params, Path, Transform


def decomposed() -> Transform:
    """Each selected weight becomes `LowRank` at full rank, by its SVD, the singular values shared by both factors.

    Raises:
      ValueError: at use, a compressed weight, or none that is a matrix.
    """

    def init(params: Params, evidence: Evidence) -> tuple[Params, tuple]:
        given = tree.pick(params, evidence.layouts)
        packed = next((path for path, w in given.items() if is_leaf(w)), None)
        if packed is not None:
            raise ValueError(f"{packed}: decomposed works on dense weights; got a {type(given[packed]).__name__}.")
        weights = {p: w for p, w in given.items() if svd().unfold(w, evidence.layouts[p])}
        if given and not weights:
            raise ValueError(
                f"no weight can be decomposed: {', '.join(given)} are no matrices, or grouped convolutions."
            )
        ranks = {p: {"": min(svd().unfold(w, evidence.layouts[p])[""].shape[-2:])} for p, w in weights.items()}
        return tree.replace(params, fitting.build(svd(), weights, ranks, evidence)), ()

    def update(params: Params, state: tuple, evidence: Evidence) -> tuple[Params, tuple, Info]:
        found = factored(tree.pick(params, evidence.layouts))
        return params, state, {path: {"method": "maestro", "rank": leaf.rank} for path, leaf in found.items()}

    return Transform(frozenset(), init, update)


def factored(params: Params) -> dict[Path, LowRank]:
    """The `LowRank` leaves of a tree by path.

    Raises:
      ValueError: one whose factors are compressed, or that is wrapped: neither can be cut or measured here.
    """
    weights = tree.weights(params)
    for path, w in weights.items():
        inner = [x for x in jax.tree.leaves(w, is_leaf=_is_low_rank) if _is_low_rank(x)]
        if any(x is not w or is_leaf(x.left) or is_leaf(x.right) for x in inner):
            raise ValueError(
                f"{path}: a {type(w).__name__} with compressed factors, or factors inside; Maestro takes plain LowRank "
                "weights: shrink first, then compress the factors or add to them."
            )
    return {path: w for path, w in weights.items() if isinstance(w, LowRank)}


def _is_low_rank(x: Any) -> bool:
    return isinstance(x, LowRank)


def sampled(key: Array, params: Params) -> Params:
    """The params with one layer cut to its first b ranks, uniform over all pairs (layer, b); traced once for all.

    Raises:
      ValueError: params without a `LowRank` leaf.
    """
    leaves = factored(params)
    if not leaves:
        held = ", ".join(list(tree.weights(params))[:6])
        raise ValueError(
            f"params must hold LowRank leaves, as maestro.decomposed() makes; they hold {held or 'nothing'}."
        )
    ranks = jnp.asarray([leaf.rank for leaf in leaves.values()])
    pair = jax.random.randint(key, (), 0, jnp.sum(ranks))
    ends = jnp.cumsum(ranks)
    layer = jnp.searchsorted(ends, pair, side="right")
    kept = 1 + pair - (ends[layer] - ranks[layer])
    keep = [jnp.where(layer == i, kept, leaf.rank) for i, leaf in enumerate(leaves.values())]
    return tree.replace(params, {path: cut(leaf, count) for (path, leaf), count in zip(leaves.items(), keep)})


def cut(leaf: LowRank, count: Array | int) -> LowRank:
    """The leaf with all but its first `count` ranks at zero; the shapes stay."""
    alive = (jnp.arange(leaf.rank) < count).astype(leaf.dtype)
    return LowRank(leaf.left * alive, _per_row(alive, leaf) * leaf.right, leaf.columns)


def _per_row(values: Array, leaf: LowRank) -> Array:
    return values.reshape(-1, *(1,) * leaf.columns)


def group_lasso(params: Params) -> Array:
    """`sum_layers sum_i |left[:, i:]|_F + |right[i:, :]|_F`: the tails shrink from the end, one inside the other."""
    tails = [tail for leaf in factored(params).values() for tail in suffix_norms(leaf)]
    return sum((jnp.sum(tail) for tail in tails), start=jnp.zeros(()))


def suffix_norms(leaf: LowRank) -> tuple[Array, Array]:
    """`|left[:, i:]|_F` and `|right[i:, :]|_F` for every i, each `[rank]`, over all layers of a stack together."""
    square = lambda x: jnp.square(x.astype(jnp.promote_types(x.dtype, jnp.float32)))  # noqa: E731
    rows = jnp.sum(square(leaf.left), axis=tuple(range(leaf.left.ndim - 1)))
    others = tuple(a for a in range(leaf.right.ndim) if a != leaf.stack)
    columns = jnp.sum(square(leaf.right), axis=others)
    tail = lambda squares: jnp.sqrt(jnp.cumsum(squares[::-1])[::-1] + 1e-12)  # noqa: E731  finite slope at zero
    return tail(rows), tail(columns)


def objective(apply_fn: ApplyFn, params: Params, key: Array, x: Array, y: Array, weight: float = 1e-5) -> Array:
    """`CE(full, y) + CE(sampled, softmax(full)) + weight * group_lasso`, with no gradient through the target.

    Args:
      apply_fn: `(params, x) -> logits`, of dense or compressed params.
      params: a tree with `LowRank` leaves.
      key: which layer is cut, and where.
      x: images [B, ...].
      y: labels, int32 [B].
      weight: of the penalty; 1e-6 to 1e-4.

    Raises:
      ValueError: params without a `LowRank` leaf.
    """
    full = apply_fn(params, x)
    part = apply_fn(sampled(key, params), x)
    own = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(full, y))
    taught = jnp.mean(optax.softmax_cross_entropy(part, jax.nn.softmax(jax.lax.stop_gradient(full))))
    return own + taught + weight * group_lasso(params)


def shrink(params: Params, threshold: float = 1e-5) -> Params:
    """Cut off the tail of each leaf whose importance `|left[:, i:]|_F |right[i:, :]|_F` is below the threshold.

    At least one rank is left. Where the factors take no fewer bytes than the dense weight, they are multiplied. Changes
    shapes, so it runs outside jit, and what was compiled for the old shapes is compiled anew; the state of an optimizer
    has the old shapes too, so start a new one, `tx.init(params)`, where something was cut (its moments begin at zero: a
    few warm-up steps for Adam).

    Raises:
      ValueError: a negative threshold.
    """
    checks.in_range("threshold", threshold, 0.0, float("inf"))
    return tree.replace(params, {path: _shorter(leaf, threshold) for path, leaf in factored(params).items()})


def _shorter(leaf: LowRank, threshold: float) -> LowRank | Array:
    rows, columns = suffix_norms(leaf)
    count = max(1, int(jnp.sum(rows * columns >= threshold)))
    short = shortened(leaf, count)
    return short if nbytes(short) < leaf.dtype.itemsize * math.prod(leaf.shape) else dense(leaf)
