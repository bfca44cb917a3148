"""How much each channel matters, over everything that goes with it."""

from collections.abc import Mapping

import numpy as np

from spartax import checks
from spartax.program import Group, Member
from spartax.records import Weights


def group_scores(groups: Mapping[str, Group], entries: Weights, *, power: float | None = 2.0) -> dict[str, np.ndarray]:
    """One score for each channel of every group that is not frozen; higher = keep.

    For a member with entries `e`, channel c has `(sum |e|^power)^(1 / power)` over its slice, or `|sum e|` if `power`
    is None; the score is the mean over members, divided by its mean over channels so that groups can be ranked together
    (DepGraph, arXiv 2301.12900).

    * weights as entries: the L2 norm (`power=1`: L1). Any criterion gives entries too: `prune.magnitude().score(...)`.
    * weight times gradient with `power=None`: first-order Taylor (arXiv 1906.10771).
    * only the scales of batch normalizations: network slimming (arXiv 1708.06519).

    Args:
      groups: what `spartax.groups` found.
      entries: path -> array of the weight's shape; members whose path is missing do not count.
      power: of the norm over a slice.

    Returns:
      `{name: float64 [channels]}`; all ones where every slice is zero.

    Raises:
      ValueError: `power` is not positive; a free group has no member among the entries; scores that are not finite.
    """
    if power is not None and power <= 0:
        raise ValueError(f"power must be positive or None; got {power!r}.")
    scores = {}
    for name, group in groups.items():
        if group.frozen:
            continue
        rows = [_slices(member, entries[member.path], power) for member in group.members if member.path in entries]
        if not rows:
            raise ValueError(f"entries hold none of the weights of group {name}: {[m.path for m in group.members]}.")
        score = np.mean(rows, axis=0)
        checks.finite(f"the score of group {name}", score)
        scores[name] = score / np.mean(score) if np.any(score) else np.ones(group.size)
    return scores


def _slices(member: Member, entry: object, power: float | None) -> np.ndarray:
    """The size of each channel's part: `[channels]`."""
    parts = np.moveaxis(np.asarray(entry, np.float64), member.axis, 0)[member.indices]
    parts = parts.reshape(len(member.indices), -1)
    return np.abs(parts.sum(axis=1)) if power is None else np.sum(np.abs(parts) ** power, axis=1) ** (1 / power)
