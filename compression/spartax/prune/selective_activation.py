"""AP: removing negative weights that training hardly moved, so that fewer ReLUs are zero."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from spartax import catalog, checks, tree
from spartax.arrays import Masked, dense, is_leaf
from spartax.kernels import threshold
from spartax.prune.health import refuse_empty, report
from spartax.prune.masks import exchange, mine
from spartax.records import Array, Evidence, Info, Params, Path, Transform


def selective_activation(pruner: Transform, fraction: float = 0.02) -> Transform:
    """Activate-while-pruning: every other `update` is the pruner's, those between remove negative weights.

    Among kept negative weights of all layers together, the `int(fraction * kept weights)` with the smallest
    `|w - w_start|` are removed; `w_start` are the weights that the last training began with (`evidence.originals`).
    A unit that loses negative inputs is zero less often (`spartax.program.dead_neurons`). It says nothing about
    importance and is never used alone: `train.lottery` rewinds and trains between the two removals. The pruner counts
    its own rounds: it sees `step // 2`. Give it `regrow=False`, else it takes removed weights back.
    See AP: Selective Activation for De-sparsifying Pruned Neural Networks.

    Args:
      pruner: such as `prune.prune(prune.magnitude(), 0.9, schedule=prune.exponential(10), regrow=False)`.
      fraction: removed part of the kept weights, in [0, 1); the paper's rounds are 18 % and 2 %.

    Raises:
      ValueError: `fraction` outside [0, 1); at use, weights that are no plain arrays under a mask, originals missing,
        a weight left with no entries.
    """
    checks.in_range("fraction", fraction, 0.0, 1.0, open_high=True)

    def init(params: Params, evidence: Evidence) -> tuple[Params, tuple[Any, int]]:
        params, inner = pruner.init(params, evidence)
        return params, (inner, 0)

    def update(params: Params, state: tuple[Any, int], evidence: Evidence) -> tuple[Params, tuple[Any, int], Info]:
        catalog.need("originals", evidence)
        inner, turn = state
        if turn % 2 == 0:
            own = evidence if evidence.step is None else evidence._replace(step=evidence.step // 2)
            params, inner, info = pruner.update(params, inner, own)
            return params, (inner, turn + 1), info
        leaves = {path: _under_mask(path, w) for path, w in tree.pick(params, evidence.layouts).items()}
        masks = activated(leaves, evidence.originals or {}, fraction)
        masked = {path: Masked(leaf.weight, masks[path]) for path, leaf in leaves.items()}
        before, after = _counted(leaves), _counted(masked)
        refuse_empty({path: after[path] for path, n in before.items() if n}, "lower the fraction")
        new = {path: exchange(w, 0, masked[path]) for path, w in tree.pick(params, masked).items()}
        info = report(masks, masked, evidence, "selective_activation")
        info = {path: {**entry, "removed": before[path] - after[path]} for path, entry in info.items()}
        return tree.replace(params, new), (inner, turn + 1), info

    return Transform(pruner.needs | {"originals"}, init, update, pruner.check, pruner.due)


def activated(leaves: Mapping[Path, Masked], starts: Mapping[Path, Array], fraction: float) -> dict[Path, Array]:
    """The masks without the negative kept weights that moved least; ties to the lowest index of the first path."""
    scores = {path: _stillness(leaf, starts[path]) for path, leaf in leaves.items()}
    alive = sum(_counted(leaves).values())
    candidates = sum(int(jnp.sum(score > -jnp.inf)) for score in scores.values())
    gone = threshold.kth_largest(list(scores.values()), min(int(fraction * alive), candidates)).kept
    return {p: dense(leaf.mask) & ~threshold.top(scores[p], k) for (p, leaf), k in zip(leaves.items(), gone)}


@jax.jit
def _stillness(leaf: Masked, start: Array) -> Array:
    """Minus the displacement of a kept negative weight, minus infinity for all others."""
    weight = leaf.weight.astype(jnp.promote_types(leaf.weight.dtype, jnp.float32))
    return jnp.where(dense(leaf.mask) & (weight < 0), -jnp.abs(weight - start), -jnp.inf)


def _under_mask(path: Path, weight: Any) -> Masked:
    leaf = mine(weight, 0)
    if is_leaf(leaf.weight):
        raise ValueError(f"{path}: selective_activation looks at plain arrays under a mask; got {leaf.weight}.")
    return leaf


def _counted(leaves: Mapping[Path, Masked]) -> dict[Path, int]:
    return {path: int(jnp.sum(dense(leaf.mask))) for path, leaf in leaves.items()}
