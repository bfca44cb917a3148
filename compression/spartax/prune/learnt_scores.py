"""Learnt scores: which weights matter is found by training, under any loss."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from spartax import checks, tree
from spartax.arrays import Pulled, Scored, Thresholded, TopOfGroups, Twin, dense, thresholded, top_of_groups
from spartax.arrays import scored as leaf
from spartax.prune.allocations.uniform import uniform
from spartax.prune.health import refuse_empty, report
from spartax.prune.schedules.one_shot import one_shot
from spartax.records import Allocation, Array, Evidence, Info, Layout, Params, Path, Schedule, Transform

Start = Callable[[Array, Layout], Array]  # (dense weight, layout) -> first scores, same shape


def learnt_scores(
    sparsity: float = 0.9, allocation: Allocation | None = None, schedule: Schedule | None = None
) -> Transform:
    """HYDRA: each weight becomes `Scored`, under the mask of its top `|scores|`, which training moves straight through.

    Scores begin at `sqrt(6 / fan_in) W / max|W|`, one maximum for each layer, so that step 0 is layer-wise magnitude
    pruning; they then follow `sign(s) * (dL/dw * W)`. The stages of the paper, all under one robust loss `L`:

    1. train the dense network;
    2. `params, state = learnt_scores(0.9).init(params, evidence)` (or `compress`), then train the scores alone:
       `train.init_state(variables, tx, rule=lambda path, x: path.endswith("/scores"))` (add the norms to the rule where
       there are any), with the loss, say `train.pgd_at(attack)`: the attack then sees the pruned network;
    3. `prune.finish(params)` fixes the masks, and the same loss trains the weights that are left.

    `update` sets the kept counts to the sparsity of its schedule, without retracing, and reports.
    See Sehwag et al., HYDRA: Pruning Adversarially Robust Neural Networks, arXiv 2002.10509.

    Args:
      sparsity: removed fraction, in [0, 1).
      allocation: counts of each weight; `prune.uniform()` when left out.
      schedule: the sparsity at each training step; `prune.one_shot()` when left out.

    Raises:
      ValueError: sparsity outside [0, 1); at use, a weight left with no entries, or params without scores.
    """
    return scored("learnt_scores", magnitude_start, sparsity, allocation, schedule, absolute=True)


def magnitude_start(weight: Array, layout: Layout) -> Array:
    """`sqrt(6 / fan_in) W / max|W|` in float32; the maximum is over each layer of a stack. Zeros stay zeros."""
    fan_in = math.prod(weight.shape[axis] for axis in layout.inputs)
    weight = weight.astype(jnp.float32)
    axes = tuple(axis for axis in range(weight.ndim) if axis not in layout.stack)
    largest = jnp.max(jnp.abs(weight), axes, keepdims=True)
    return math.sqrt(6 / fan_in) * weight / jnp.where(largest > 0, largest, 1.0)


def scored(
    method: str,
    start: Start,
    sparsity: float,
    allocation: Allocation | None,
    schedule: Schedule | None,
    *,
    absolute: bool,
) -> Transform:
    """The transform that wraps weights in `Scored` leaves, with the scores `start` gives."""
    checks.in_range("sparsity", sparsity, 0.0, 1.0, open_high=True)
    allocation, schedule = allocation or uniform(), schedule or one_shot()

    def counted(leaves: dict[Path, Scored], evidence: Evidence) -> dict[Path, Scored]:
        size = jnp.abs if absolute else jnp.asarray
        target = sparsity if evidence.step is None else schedule.sparsity(sparsity, int(evidence.step))
        counts = allocation({path: size(x.scores) for path, x in leaves.items()}, target, evidence)
        refuse_empty(counts)
        return {p: Scored(x.weight, x.scores, jnp.int32(counts[p]), absolute) for p, x in leaves.items()}

    def init(params: Params, evidence: Evidence) -> tuple[Params, dict]:
        begin = jax.jit(lambda w, layout: start(dense(w), layout), static_argnums=1)
        weights = tree.pick(params, evidence.layouts)
        first = {p: Scored(w, begin(w, evidence.layouts[p]), jnp.int32(0), absolute) for p, w in weights.items()}
        return tree.replace(params, counted(first, evidence)), {}

    def update(params: Params, state: dict, evidence: Evidence) -> tuple[Params, dict, Info]:
        weights = tree.pick(params, evidence.layouts)
        new = counted({path: tree.inner(path, w, Scored, "learnt scores") for path, w in weights.items()}, evidence)
        put = {path: tree.exchanged(w, new[path]) for path, w in weights.items()}
        masks = {path: _kept(x) for path, x in new.items()}
        return tree.replace(params, put), state, report(masks, new, evidence, method)

    needs = getattr(allocation, "needs", frozenset())
    return Transform(needs, init, update, due=schedule.due)


def finish(params: Params) -> Params:
    """The params without what only their training needed; fine-tune or `pack` them.

    `Scored`, `TopOfGroups`, `Thresholded` become `Masked`, their mask fixed; `Twin` and `Pulled` become plain arrays.
    """
    return jax.tree.map(lambda x: _FIXED.get(type(x), lambda x: x)(x), params, is_leaf=lambda x: type(x) in _FIXED)


_FIXED: dict[type, Callable[[Any], Any]] = {
    Scored: jax.jit(leaf.fixed),
    TopOfGroups: jax.jit(top_of_groups.fixed),
    Thresholded: jax.jit(thresholded.fixed),
    Twin: jax.jit(dense),
    Pulled: jax.jit(dense),
}


_kept = jax.jit(leaf.kept)
