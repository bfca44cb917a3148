"""LAPP: channels pruned while training starts, by a learnt threshold for each layer."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from spartax import catalog, checks, tree
from spartax.arrays import LowRank, Sum, Thresholded, is_leaf
from spartax.arrays import thresholded as leaf
from spartax.prune.health import report
from spartax.records import Array, Evidence, Info, Layout, Params, Path, Transform


def lapp(*, bypass: float = 0.05, temperature: float = 0.05) -> Transform:
    """Each weight becomes `Thresholded`: output channels whose norm is under the layer's threshold are off.

    Thresholds start one temperature under the smallest norm of their layer, where nothing is off and the derivative
    lives, and are trained with the weights under `train.lapp(...)`, whose
    constraint on the multiply-adds pushes them up; `max(1, min(4, 5 % of the channels))` channels stay on. Then
    `prune.finish(params)` fixes the masks, and `prune.mask_groups(groups, params, prune.dead_channels(groups, params))`
    with `prune.shrink` makes the network small. Select with a rule the weights whose channels can go alone: in
    residual networks those inside blocks.

    The light bypass beside each convolution is a low-rank kernel added to its kernel, zero at first, and gated with its
    channels: the sum is one kernel when the masks are fixed, and costs nothing. The paper keeps its bypass whole, so
    that narrow layers pass information on; channels that a bypass feeds cannot be cut out. Where a normalization
    follows, a channel that is off is still a constant, until `prune.mask_groups` takes it away. The paper's abstract is
    all that is known of the method: scores, surrogate derivative and bypass are a reconstruction. See LAPP: Layer
    Adaptive Progressive Pruning for Compressing CNNs from Scratch.

    Args:
      bypass: size of the bypass as a part of the weight, in [0, 1); 0 for none, and none where it leaves no rank.
      temperature: width of the surrogate derivative, in units of the mean norm of a layer's channels.

    Raises:
      ValueError: arguments out of their range; at use, a weight that is compressed already, or is not one matrix with
        its outputs last, or a key that is missing.
    """
    checks.in_range("bypass", bypass, 0.0, 1.0, open_high=True)
    checks.in_range("temperature", temperature, 1e-6, math.inf, open_high=True)

    def init(params: Params, evidence: Evidence) -> tuple[Params, dict]:
        key = catalog.need("key", evidence)
        new = {}
        for number, (path, w) in enumerate(tree.pick(params, evidence.layouts).items()):
            _check(path, w, evidence.layouts[path])
            least = max(1, min(4, math.ceil(0.05 * w.shape[-1])))
            inner = _with_bypass(jax.random.fold_in(key, number), w, bypass)
            start = jnp.min(leaf.scores(w, -1)) - temperature
            new[path] = Thresholded(inner, start, -1, least, temperature)
        return tree.replace(params, new), {}

    def update(params: Params, state: dict, evidence: Evidence) -> tuple[Params, dict, Info]:
        found = {path: _under_threshold(path, w) for path, w in tree.pick(params, evidence.layouts).items()}
        fixed = {path: _fixed(w) for path, w in found.items()}
        info = report({path: w.mask for path, w in fixed.items()}, fixed, evidence, "lapp")
        return params, state, {path: {**entry, **_told(found[path])} for path, entry in info.items()}

    return Transform(frozenset({"key"}), init, update)


def _check(path: Path, weight: Any, layout: Layout) -> None:
    if is_leaf(weight):
        raise ValueError(f"{path}: lapp trains plain arrays; got a {type(weight).__name__}.")
    if layout.outputs != (weight.ndim - 1,) or layout.stack:
        raise ValueError(f"{path}: lapp needs one matrix with its outputs on the last axis; got {layout}.")


def _with_bypass(key: Array, weight: Array, share: float) -> Array | Sum:
    rows, columns = weight.size // weight.shape[-1], weight.shape[-1]
    rank = int(share * weight.size / (rows + columns))
    if rank == 0:
        return weight
    left = jax.random.normal(key, (*weight.shape[:-1], rank), weight.dtype) * math.sqrt(2 / rows)
    return Sum((weight, LowRank(left, jnp.zeros((rank, columns), weight.dtype))))


_fixed = jax.jit(leaf.fixed)


def _under_threshold(path: Path, weight: object) -> Thresholded:
    if not isinstance(weight, Thresholded):
        raise ValueError(f"{path} holds no threshold; call init of this transform first.")
    return weight


def _told(weight: Thresholded) -> dict[str, Any]:
    return {"threshold": float(weight.threshold), "channels": int(jnp.sum(leaf.gates(weight)))}
