"""What pruning left of each weight, and whether the network still conducts."""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from spartax import tree
from spartax.arrays import dense
from spartax.records import Array, Evidence, Info, Objective, Path, Weights

FEW, SHARE = 10, 0.001  # a weight with fewer kept entries, or a smaller part of them, is called nearly empty


def report(masks: Weights, pruned: Weights, evidence: Evidence, method: str = "prune") -> Info:
    """For every path: kept entries, realised sparsity, output units without input, warnings.

    `connected` says whether the weight lies on a live path: some kept entry of it, and some input of the network, moves
    a logit on the first batch. It is None where the evidence has no objective, one without values, or a network without
    derivatives.

    Args:
      masks: bool mask of every path.
      pruned: the weight under its mask, dense or not.
      evidence: layouts, and the objective if there is one.
      method: the name of what pruned.
    """
    info = {path: {"method": method, **_counts(mask, evidence.layouts[path].inputs)} for path, mask in masks.items()}
    objective, found = evidence.objective, dict.fromkeys(masks)
    if objective is not None and not any(
        isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(_input(objective))
    ):
        # A network without derivatives (one with a while loop, or a callback) can be pruned all the same.
        with contextlib.suppress(ValueError, NotImplementedError):
            found = connected(masks, pruned, objective)
    for path, entry in info.items():
        entry["connected"] = found[path]
        warnings = _warnings(entry)
        if warnings:
            entry["warnings"] = warnings
    return info


def refuse_empty(counts: Mapping[Path, int], remedy: str = "lower the sparsity") -> None:
    """No weight may be left with no entries."""
    empty = [path for path, keep in counts.items() if keep == 0]
    if empty:
        raise ValueError(f"{', '.join(empty)}: no weight would be left; {remedy}.")


def connected(masks: Weights, pruned: Weights, objective: Objective) -> dict[Path, bool]:
    """Whether each weight lies on a live path of the pruned network, by the gradients of its logits on one batch.

    A gradient that is not zero proves a path from input to output; zeros everywhere say that the network answers the
    same whatever this weight does, on every example of the batch.
    """
    found = _moving(tree.argument(objective.logits), masks, pruned, jax.tree.map(jnp.asarray, _input(objective)))
    return {path: bool(moves) for path, moves in found.items()}


@jax.jit
def _moving(logits_fn: Callable[[Weights, Any], Any], masks: Weights, pruned: Weights, x: Any) -> Weights:
    outputs, back = jax.vjp(lambda w, x: _floats(logits_fn(w, x)), dense(pruned), x)
    # A different factor for each logit: their plain sum is constant where a network centers them.
    by_weight, by_input = back([jnp.broadcast_to(1 + jnp.arange(v.shape[-1], dtype=v.dtype), v.shape) for v in outputs])
    seen, whole = _floats(by_input), len(_floats(x)) == len(jax.tree.leaves(x))
    reached = jnp.any(jnp.stack([jnp.any(g != 0) for g in seen])) if whole else True
    return {path: reached & jnp.any((by_weight[path] != 0) & mask) for path, mask in masks.items()}


def _floats(values: Any) -> list[Array]:
    """The floating arrays of a tree: integers have no derivatives."""
    return [v for v in jax.tree.leaves(values) if v.ndim and jnp.issubdtype(v.dtype, jnp.floating)]


def _input(objective: Objective) -> Any:
    batch = objective.batches[0]
    return batch[0] if isinstance(batch, tuple | list) else batch


def _counts(mask: Array, inputs: tuple[int, ...]) -> dict[str, Any]:
    kept, unfed = (int(n) for n in _kept_and_unfed(mask, inputs))
    return {
        "kept": kept,
        "size": mask.size,
        "sparsity": 1 - kept / mask.size,
        "outputs_without_input": unfed,
    }


@jax.jit(static_argnums=1)
def _kept_and_unfed(mask: Array, inputs: tuple[int, ...]) -> tuple[Array, Array]:
    """Number of kept entries, and of output units that none of them leads to."""
    return jnp.sum(mask), jnp.sum(~jnp.any(mask, axis=inputs))


def _warnings(entry: dict[str, Any]) -> list[str]:
    found = []
    if entry["kept"] < min(FEW, entry["size"]) or entry["kept"] < SHARE * entry["size"]:
        found.append(f"nearly empty: {entry['kept']} of {entry['size']} entries are left")
    if entry["connected"] is False:
        found.append("on no live path: no kept entry, or no input, moves a logit on the first batch")
    return found
