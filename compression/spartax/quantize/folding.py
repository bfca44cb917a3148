"""Factors per channel, folded into weights where the program proves that the network stays the same."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spartax import catalog, tree
from spartax.arrays.verbs import is_leaf
from spartax.program import Scaling
from spartax.records import Array, Evidence, Info, Layout, Params, Path, Transform, Weights

NOT_FOLLOWED = "the program reads it where channels are not followed: inside a loop or a branch, sliced, or not at all"

Pairs = dict[Path, Scaling]
Factors = dict[Path, Array]  # root of a pair -> s [channels], positive
Choose = Callable[[Weights, Pairs, Evidence], tuple[Factors, Info]]  # factors, and what info says of each pair


def folding(method: str, needs: frozenset[str], choose: Choose) -> Transform:
    """The transform that folds the factors of `choose` into the weights that `init` saw: `update` does not add up."""

    def init(params: Params, evidence: Evidence) -> tuple[Params, Weights]:
        tree.pick(params, evidence.layouts)
        pairs = _usable(params, evidence)[0]
        return params, tree.pick(params, [p for pair in pairs.values() for p in (*pair.divided, *pair.multiplied)])

    def update(params: Params, state: Weights, evidence: Evidence) -> tuple[Params, Weights, Info]:
        catalog.require(needs, evidence)
        pairs, refused = _usable(params, evidence)
        factors, about = choose(state, pairs, evidence) if pairs else ({}, {})
        info: Info = {path: {"method": method, "refused": why} for path, why in refused.items()}
        for root, pair in pairs.items():
            ends = {"smallest": float(jnp.min(factors[root])), "largest": float(jnp.max(factors[root]))}
            entry = {"method": method, "divided": list(pair.divided), **ends, **about.get(root, {})}
            info |= dict.fromkeys(pair.multiplied, entry)
        return tree.replace(params, _folded(state, factors, pairs)), state, info

    return Transform(needs | {"scalings"}, init, update)


def _usable(params: Params, evidence: Evidence) -> tuple[Pairs, dict[Path, str]]:
    """The pairs whose weights are selected and still arrays, and why the inputs of other weights are not scaled."""
    found, weights = catalog.need("scalings", evidence), tree.weights(params)
    pairs, refused = {}, {p: why for p, why in found.refused.items() if p in evidence.layouts}
    for root, pair in found.pairs.items():
        members = (*pair.divided, *pair.multiplied)
        own = [*pair.multiplied, *(p for p in pair.divided if weights[p].ndim > 1)]
        out = [f"{p} is not selected" for p in own if p not in evidence.layouts]
        out += [f"{p} is compressed already" for p in members if is_leaf(weights[p])]
        if out:
            refused |= {path: out[0] for path in pair.multiplied if path in evidence.layouts}
        else:
            pairs[root] = pair
    known = {path for pair in pairs.values() for path in pair.multiplied} | set(refused)
    return pairs, refused | {path: NOT_FOLLOWED for path in evidence.layouts if path not in known}


def _folded(weights: Weights, factors: Factors, pairs: Pairs) -> Weights:
    run = jax.jit(lambda weights, factors: scaled(weights, factors, pairs))
    return run(weights, factors) if pairs else {}


def scaled(weights: Weights, factors: Factors, pairs: Pairs) -> Weights:
    """`w / s` and `w * s`, in float32, as the dtype of each weight."""
    new = dict(weights)
    for root, pair in pairs.items():
        for path, index in pair.divided.items():
            new[path] = (new[path] / factors[root][index]).astype(weights[path].dtype)
        for path, index in pair.multiplied.items():
            new[path] = (new[path] * factors[root][index]).astype(weights[path].dtype)
    return new


def channel_peaks(value: Array, index: np.ndarray, channels: int) -> Array:
    """The largest `|value|` of every channel, `[channels]`, 0 for one without entries."""
    value = jnp.broadcast_to(jnp.abs(value.astype(jnp.float32)), np.broadcast_shapes(value.shape, index.shape))
    same = tuple(a for a, n in enumerate(index.shape) if n == 1)
    largest = jnp.max(value, axis=same, keepdims=True)
    return jnp.maximum(jax.ops.segment_max(largest.ravel(), index.ravel(), channels), 0.0)


def weight_peaks(weights: Weights, pair: Scaling) -> Array:
    """`max |w|` over all weights that read each channel, `[channels]`."""
    each = [channel_peaks(weights[path], index, pair.channels) for path, index in pair.multiplied.items()]
    return jnp.max(jnp.stack(each), axis=0)


def in_place(rows: Array, layout: Layout, shape: tuple[int, ...]) -> Array:
    """A statistic `[I]` of the inputs (`[groups, I]` for a grouped convolution) with the axes of the weight."""
    axes: tuple[Any, ...] = layout.inputs
    if layout.groups > 1:
        axes, rows = (layout.outputs[0], *axes), jnp.repeat(rows, shape[layout.outputs[0]] // layout.groups, axis=0)
    order = sorted(range(len(axes)), key=lambda i: axes[i])
    rows = rows.reshape([shape[a] for a in axes]).transpose(order)
    return rows.reshape([n if a in axes else 1 for a, n in enumerate(shape)])
