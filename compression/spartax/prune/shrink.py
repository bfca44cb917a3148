"""`shrink`: zero channels become smaller arrays."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from spartax import checks, tree
from spartax.arrays import dense, nbytes
from spartax.arrays.masked import check_masks
from spartax.program import compressed, inspect, resized
from spartax.program import zeros as zeros_of
from spartax.program.coupling import Coupled, couple
from spartax.program.groups import Group, grouped
from spartax.program.plan import Plan
from spartax.prune.mask_groups import dead_channels
from spartax.records import ApplyFn, Array, Params, Path, Weights


class Report(NamedTuple):
    """What `shrink` did.

    Attributes:
      removed: group -> (channels removed, channels before), of every group that lost some.
      left: group -> why channels that no weight feeds are still there.
      macs: multiply-adds of one example, before and after.
      nbytes: bytes of all floating params as dense arrays, before and after.
    """

    removed: dict[str, tuple[int, int]]
    left: dict[str, str]
    macs: tuple[int, int]
    nbytes: tuple[int, int]


class Shrunk(NamedTuple):
    """A smaller network.

    Attributes:
      params: the same tree with smaller dense arrays.
      apply: jitted `apply(params, x)` for them; compressed leaves of the new shapes are welcome.
      report: what was removed.
    """

    params: Params
    apply: ApplyFn
    report: Report


def shrink(apply_fn: ApplyFn, params: Params, x: Any) -> Shrunk:
    """Remove every channel that provably contributes nothing: `apply(small, x) = apply_fn(params, x)` to rounding.

    A channel goes, with all its members (see `spartax.groups`), if it is zero wherever the program sums over channels:
    in the activations (zero weights *and* biases into it) or in the weights that read it. `prune.mask_groups` zeroes
    all of them. A channel whose weights are zero but whose bias or normalization leaves a constant stays, and is
    reported, unless nothing reads it. One channel of every axis stays. A removed channel takes with it what is infinite
    or NaN in it.

    The new function is the traced program with its sizes cut, so no model needs to know the new widths; divisors such
    as that of a layer normalization stay those of the old width. Quantize or factorize after shrinking, not before:
    compressed leaves become dense here.

    Args:
      apply_fn: pure function `(params, x) -> logits [B, K]`.
      params: arrays and compressed leaves (`Masked`) with values, running statistics among them.
      x: a batch of inputs or its `jax.ShapeDtypeStruct`; the result takes batches of any size.

    Raises:
      ValueError: weights that are not finite, masks that do not fit their weights, or a function that does not accept
        these params and inputs.
    """
    for path, weight in tree.weights(params).items():
        check_masks(path, weight)
    params = jax.jit(dense)(params)
    weights = tree.weights(params)
    for path, weight in weights.items():
        if tree.is_floating(weight):
            checks.finite(path, weight)
    coupled = couple(apply_fn, params, (x,))
    gone = _removable(coupled, weights)
    cuts = {path: _cuts(coupled, axes, gone) for path, axes in coupled.axes.items()}
    small = tree.replace(params, {p: _without(w, cuts[p]) for p, w in weights.items() if cuts[p]})
    before = inspect(apply_fn, params, x)
    apply = compressed(resized(apply_fn, params, cuts))
    after = inspect(apply, small, x)
    found = grouped(coupled, before)
    macs = sum(u.macs for u in before.values()), sum(u.macs for u in after.values())
    removed, left = _told(found, params, cuts)
    return Shrunk(small, apply, Report(removed, left, macs, (_nbytes(params), _nbytes(small))))


def _removable(coupled: Coupled, weights: Weights) -> np.ndarray:
    """For each unit, whether it goes; representatives answer for all."""
    units = coupled.units
    known = [
        zeros_of.of_array(np.asarray(w)) if tree.is_floating(w) else zeros_of.nothing(coupled.axes[path])
        for path, w in weights.items()
    ]
    unknown = [zeros_of.nothing(axes) for axes in coupled.inputs[len(known) :]]
    gone = np.zeros(units.count, bool)
    for value, axes in zip(known, coupled.axes.values()):
        for zero, axis in zip(value.axes, axes):
            gone[units.roots(axis[zero])] = True
    every = np.arange(units.count)
    gone &= ~units.is_frozen(every)

    def stays(summed: np.ndarray) -> None:
        gone[units.roots(summed)] = False

    zeros_of.read(coupled.plan, [*known, *unknown], stays)
    _leave_one(coupled, gone)
    return gone[units.roots(every)]


def _leave_one(coupled: Coupled, gone: np.ndarray) -> None:
    """No axis anywhere in the program becomes empty."""
    changed = True
    while changed:
        changed = False
        for axis in (*_axes(coupled.plan), *(a for axes in coupled.axes.values() for a in axes)):
            roots = coupled.units.roots(axis)
            if len(roots) and np.all(gone[roots]):
                gone[roots[0]], changed = False, True


def _axes(plan: Plan) -> Iterator[np.ndarray]:
    for step in plan.steps:
        for axes in step.outputs:
            yield from axes
        for body in step.bodies.values():
            yield from _axes(body)


def _cuts(coupled: Coupled, axes: tuple[np.ndarray, ...], gone: np.ndarray) -> dict[int, np.ndarray]:
    found = {axis: np.flatnonzero(gone[units]) for axis, units in enumerate(axes)}
    return {axis: indices for axis, indices in found.items() if len(indices)}


def _without(weight: Array, cuts: dict[int, np.ndarray]) -> Array:
    left = np.asarray(weight)
    for axis, indices in cuts.items():
        left = np.delete(left, indices, axis)
    return jnp.asarray(left)


def _nbytes(params: Params) -> int:
    return nbytes([w for w in tree.weights(params).values() if tree.is_floating(w)])


def _told(
    found: dict[str, Group], params: Params, cuts: dict[Path, dict[int, np.ndarray]]
) -> tuple[dict[str, tuple[int, int]], dict[str, str]]:
    unfed = dead_channels(found, params)
    removed, left = {}, {}
    for name, group in found.items():
        member = group.members[0]
        gone = np.isin(member.indices[:, 0], cuts[member.path].get(member.axis, ()))
        if gone.any():
            removed[name] = (int(gone.sum()), group.size)
        stay = int(np.sum(unfed.get(name, np.zeros(group.size, bool)) & ~gone))
        if stay:
            left[name] = f"{stay} unfed channels act through a bias, a normalization or a shortcut, or are the last"
    return removed, left
