"""Flying Bird+: sparse adversarial training whose sparsity follows the robust generalization gap."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from spartax import catalog, checks, tree
from spartax.prune.allocations.erk import erk
from spartax.prune.criteria.random import random
from spartax.prune.drop_grow import check, cosine, drawn, is_due, move
from spartax.prune.health import report
from spartax.prune.masks import exchange, mine
from spartax.records import Allocation, Array, Evidence, Info, Params, Path, Transform

Watch = Callable[[Params], tuple[float, float]]  # params -> (loss on held-out images, robust generalization gap)
WINDOW, SHARE = 4, 0.5  # differences looked at, and the part of them that must be rises
MORE_DROPPED, MORE_GROWN = 0.4, 0.05  # of those dropped, of those grown


class Flight(NamedTuple):
    """What the transform remembers.

    Attributes:
      counts: kept entries of every weight.
      seen: of the last `WINDOW + 1` refreshes the loss on held-out images and the gap, float32 [5, 2]; NaN before.
    """

    counts: dict[Path, int]
    seen: Array


def flying_bird(
    watch: Watch,
    sparsity: float = 0.8,
    allocation: Allocation | None = None,
    *,
    end: int,
    every: int = 900,
    fraction: float = 0.5,
) -> Transform:
    """Random masks that move as in `prune.sparse_evolution`, and grow or shrink with what overfits.

    At each refresh `m = int(f n)` of the `n` kept entries of a weight are dropped, the smallest, and `m` grow at
    random, `f = cosine(fraction, end, step)`. Where the robust generalization gap rose in half or more of the last four
    refreshes, `int(0.4 m)` more are dropped; where the loss on held-out images did, `int(0.05 m)` more grow: fewer
    weights against robust overfitting, more against underfitting. Without this, Flying Bird is
    `prune.sparse_evolution(fraction=0.5)`. Train under an adversarial loss.

    See Chen et al., Sparsity Winning Twice: Better Robust Generalization from More Efficient Training (arXiv
    2202.09844); numbers are those of its code.

    Args:
      watch: `params -> (loss on held-out images, gap)`, both under attack, such as `train.robust_gap(...)`; called once
        in each refresh with the tree that is trained.
      sparsity: removed fraction at first, in [0, 1).
      allocation: counts of each weight; `prune.erk()` when left out.
      end: training step from which masks stay.
      every: steps between two moves.
      fraction: part of the weights that moves at first.

    Raises:
      ValueError: values outside these ranges; at use, a weight that is compressed already or left with no entries, a
        step or key that is missing, a loss or gap that is not finite.
    """
    check(sparsity, fraction, every, end)
    if not callable(watch):
        raise ValueError(f"watch must be a function params -> (loss, gap); got {watch!r}.")
    allocation, needs = allocation or erk(), frozenset({"key", "step"})

    def init(params: Params, evidence: Evidence) -> tuple[Params, Flight]:
        params, counts = drawn("flying_bird", params, evidence, sparsity, allocation)
        return params, Flight(counts, jnp.full((WINDOW + 1, 2), jnp.nan))

    def update(params: Params, state: Flight, evidence: Evidence) -> tuple[Params, Flight, Info]:
        catalog.require(needs, evidence)
        weights = tree.pick(params, state.counts)
        old = {path: mine(w, 0) for path, w in weights.items()}
        watched = jnp.asarray([watch(params)], jnp.float32)
        checks.finite("watch: what it gives", watched)  # a NaN would stop the adaptation without a word
        seen = jnp.concatenate([state.seen[1:], watched])
        loss, gap = rising(seen)
        share = cosine(fraction, end, int(catalog.need("step", evidence)))
        wanted = random().score({path: leaf.weight for path, leaf in old.items()}, evidence)
        moves = {p: moved(n, old[p].mask.size, share, more=loss, fewer=gap) for p, n in state.counts.items()}
        new = {path: move(leaf, wanted[path], *moves[path]) for path, leaf in old.items()}
        counts = {path: n - moves[path][0] + moves[path][1] for path, n in state.counts.items()}
        info = report({p: x.mask for p, x in new.items()}, new, evidence, "flying_bird")
        about = {"loss_rises": loss, "gap_rises": gap}
        info = {path: {**entry, **about, "moved": moves[path]} for path, entry in info.items()}
        put = {path: exchange(w, 0, new[path]) for path, w in weights.items()}
        return tree.replace(params, put), Flight(counts, seen), info

    return Transform(needs, init, update, due=functools.partial(is_due, every, end))


def rising(seen: Array) -> tuple[bool, bool]:
    """Whether the loss, and the gap, rose in half or more of the differences; neither before there are all of them."""
    values = np.asarray(seen)
    loss, gap = (np.mean(values[1:] > values[:-1], axis=0) >= SHARE) & ~np.isnan(values).any()
    return bool(loss), bool(gap)


def moved(kept: int, size: int, share: float, *, more: bool, fewer: bool) -> tuple[int, int]:
    """How many of `kept` entries are dropped, and how many of those that are not kept then grow; one is always left."""
    usual = int(share * kept)
    dropped = min(usual + fewer * int(MORE_DROPPED * usual), kept - 1)
    return dropped, min(usual + more * int(MORE_GROWN * usual), size - kept + dropped)
