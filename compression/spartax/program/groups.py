"""`groups`: the channels of a network, each with everything that must go if it goes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from spartax.program.coupling import Coupled, couple
from spartax.program.coupling_contractions import SPATIAL
from spartax.program.factors import SINGLE
from spartax.program.inspect import Usage, inspect
from spartax.records import Params, Path

Signature = tuple[tuple[Path, int, int], ...]


class Member(NamedTuple):
    """The part of one weight that belongs to the channels of a group.

    Attributes:
      path: the weight.
      axis: the axis that is cut.
      indices: `[channels, k]`, the indices of each channel along it; `k` is more than one where a reshape spreads a
        channel: an attention head over its columns, a feature map over a flattened image.
      role: `"output"` if the axis indexes outputs of a contraction, `"input"` if it is contracted, else `"vector"`
        (biases, scales and statistics of normalizations, embeddings).
    """

    path: Path
    axis: int
    indices: np.ndarray
    role: str


class Group(NamedTuple):
    """Channels with the same members.

    Attributes:
      members: parts of weights that can only be removed together.
      size: number of channels.
      frozen: why they cannot be removed, or None.
    """

    members: tuple[Member, ...]
    size: int
    frozen: str | None


def groups(apply_fn: Callable[..., Any], params: Params, *args: Any) -> dict[str, Group]:
    """Which parts of which weights can only be removed together, read off the program `apply_fn(params, *args)`.

    Dependency graph of Fang et al., DepGraph: Towards Any Structural Pruning (arXiv 2301.12900), found by union-find
    over the indices of every axis of every value, through reshapes, concatenations, padded and sliced shortcuts, groups
    of convolutions, attention heads, shared weights and stacks of layers (whose layers lose the same channels). A group
    is frozen if it reaches an input or output of the model, an operation without a rule, or a sum over channels that
    would notice: a normalization over channels that does not vanish with them. One whose statistics are plain sums is
    free; the divisor stays that of the whole network.

    Args:
      apply_fn: pure function of `params` and more.
      params: arrays, compressed leaves or `jax.ShapeDtypeStruct`: only shapes are read.
      *args: the other arguments, arrays or `jax.ShapeDtypeStruct`.

    Returns:
      `{name: Group}`, named after the first weight whose outputs (else: which) the channels are.

    Raises:
      ValueError: the function does not accept these params or inputs.
    """
    coupled = couple(apply_fn, params, args)
    return grouped(coupled, inspect(apply_fn, params, *args))


def grouped(coupled: Coupled, usages: dict[Path, Usage]) -> dict[str, Group]:
    """The groups of a program that was read."""
    why = coupled.units.why_frozen()
    found: dict[tuple[Signature, str | None], list[list[list[int]]]] = {}
    for root, where in channels(coupled).items():
        if why.get(root) not in (SPATIAL, SINGLE):
            key = tuple((path, axis, len(indices)) for (path, axis), indices in where.items())
            found.setdefault((key, why.get(root)), []).append(list(where.values()))
    made = [_group(key, reason, rows, usages) for (key, reason), rows in found.items()]
    return _named(made)


def channels(coupled: Coupled) -> dict[int, dict[tuple[Path, int], list[int]]]:
    """Every set of units in the weights, by its representative: `{root: {(path, axis): indices}}`."""
    found: dict[int, dict[tuple[Path, int], list[int]]] = {}
    for path, axes in coupled.axes.items():
        for axis, units in enumerate(axes):
            for index, root in enumerate(coupled.units.roots(units).tolist()):
                found.setdefault(root, {}).setdefault((path, axis), []).append(index)
    return found


def _group(key: Signature, reason: str | None, rows: list[list[list[int]]], usages: dict[Path, Usage]) -> Group:
    indices = [np.array(column) for column in zip(*rows)]
    members = [Member(path, axis, i, _role(usages, path, axis)) for (path, axis, _), i in zip(key, indices)]
    return Group(tuple(members), len(rows), reason)


def _role(usages: dict[Path, Usage], path: Path, axis: int) -> str:
    layout = usages[path].layout if path in usages else None
    if layout is None:
        return "vector"
    return "output" if axis in layout.outputs else "input" if axis in layout.inputs else "vector"


def _named(made: list[Group]) -> dict[str, Group]:
    """Those that can be cut come first, and choose their names first."""
    named: dict[str, Group] = {}
    for group in sorted(made, key=lambda g: g.frozen is not None):
        producers = [m.path for m in group.members if m.role == "output"]
        name = base = producers[0] if producers else group.members[0].path
        count = 1
        while name in named:
            count += 1
            name = f"{base} ({count})"
        named[name] = group
    return named
