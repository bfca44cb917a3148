"""Masks for whole channels: what a network is fine-tuned with before the channels are removed."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from spartax import checks, tree
from spartax.arrays import Masked, dense
from spartax.program import Group
from spartax.records import Params


def mask_groups(groups: Mapping[str, Group], params: Params, removed: Mapping[str, np.ndarray]) -> Params:
    """Params in which every member of the removed channels is masked: kernels of both sides, biases, normalizations.

    With all members zero, a channel contributes nothing, so `prune.shrink` gives the function of these params exactly.
    Weights that are `Masked` already keep their mask as well. In Flax collections `{"params": ..., ...}` the members in
    other collections than `params` (running statistics, which training replaces) are set to zero and stay arrays.

    Args:
      groups: what `spartax.groups` found.
      params: arrays and compressed leaves.
      removed: `{name: bool [channels]}`, True = removed, such as `prune.select_channels` gives; groups may be missing.

    Raises:
      ValueError: an unknown or frozen group, or a mask of another length.
    """
    weights = tree.weights(params)
    masks: dict[str, np.ndarray] = {}
    for name, gone in removed.items():
        checks.one_of("removed", name, list(groups))
        group, gone = groups[name], np.asarray(gone, bool)
        if gone.shape != (group.size,):
            raise ValueError(f"removed[{name!r}] must have shape ({group.size},); got {gone.shape}.")
        if group.frozen and gone.any():
            raise ValueError(f"removed[{name!r}]: these channels cannot be removed: {group.frozen}.")
        for member in group.members if gone.any() else ():
            mask = masks.setdefault(member.path, np.ones(weights[member.path].shape, bool))
            np.moveaxis(mask, member.axis, 0)[member.indices[gone].ravel()] = False
    collections = isinstance(params, Mapping) and "params" in params
    fixed = {path for path in masks if collections and not path.startswith("params/")}
    masked = {path: _masked(weights[path], mask) for path, mask in masks.items()}
    return tree.replace(params, {path: dense(w) if path in fixed else w for path, w in masked.items()})


def _masked(weight: object, mask: np.ndarray) -> Masked:
    if isinstance(weight, Masked):
        return Masked(weight.weight, jnp.asarray(np.asarray(dense(weight.mask)) & mask))
    return Masked(weight, jnp.asarray(mask))


def dead_channels(groups: Mapping[str, Group], params: Params) -> dict[str, np.ndarray]:
    """The channels that no weight feeds: `{name: bool [channels]}` of the groups that are not frozen.

    A channel is dead when the slices of all weights whose output it is are zero, as a pattern that prunes output
    channels leaves them. Its bias and normalization may still make it a constant other than zero;
    `mask_groups(groups, params, dead_channels(groups, params))` removes those with it.
    """
    weights = tree.weights(params)
    dead = {}
    for name, group in groups.items():
        fed = [m for m in group.members if m.role == "output"]
        if group.frozen or not fed:
            continue
        dead[name] = np.ones(group.size, bool)
        for member in fed:
            slices = np.moveaxis(np.asarray(dense(weights[member.path])), member.axis, 0)[member.indices]
            dead[name] &= np.all(slices.reshape(group.size, -1) == 0, axis=1)
    return dead
