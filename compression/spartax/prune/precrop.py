"""PreCrop: a network made narrower before it is trained, by how much each layer costs."""

import math
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from spartax import checks
from spartax.program import Group, groups, inspect
from spartax.prune.mask_groups import mask_groups
from spartax.prune.shrink import Report, shrink
from spartax.records import ApplyFn, Array, Params, Path


class Cropped(NamedTuple):
    """A narrower network.

    Attributes:
      params: the same tree with smaller arrays.
      apply: jitted `apply(params, x)` for them.
      widths: weight path -> output channels that it has now, of every cropped group: the configuration of the network.
      densities: weight path -> the density that the cost asks for.
      report: channels, multiply-adds and bytes, before and after.
    """

    params: Params
    apply: ApplyFn
    widths: dict[Path, int]
    densities: dict[Path, float]
    report: Report


def precrop(
    apply_fn: ApplyFn,
    params: Params,
    x: Any,
    key: Array,
    sparsity: float = 0.5,
    *,
    cost: str = "params",
    names: Collection[str] | None = None,
    round_to: int = 1,
) -> Cropped:
    """Crop channels at initialization so that layers have the densities `p_l = min(1, mu / c_l)`; no data is needed.

    These maximize the expected SynFlow objective, `sum_l log p_l`, under the budget `sum_l p_l c_l = (1 - sparsity)
    sum_l c_l`: layers that are not dense cost the same. A layer's density is the product of the kept fractions of its
    inputs and outputs; the fractions `r_g` of the groups of channels are the least-squares solution of `sum_g log r_g =
    log p_l`, scaled by one factor so that the budget is met after rounding. Which channels go is drawn: train from
    scratch. See Structured Pruning is All You Need for Pruning CNNs at Initialization (the closed form is derived from
    its objective).

    Args:
      apply_fn: pure function `(params, x) -> logits [B, K]`.
      params: fresh weights.
      x: a batch of inputs or its `jax.ShapeDtypeStruct`.
      key: PRNG key.
      sparsity: removed fraction of the cost, in [0, 1).
      cost: of a layer: `"params"`, its weights, or `"macs"`, its multiply-adds.
      names: groups (`spartax.groups`) that may be cropped; when left out, those that are all outputs of one weight and
        of no other: every group of a chain, and in residual networks the channels inside blocks.
      round_to: multiple of which each width is, as far as the group has channels.

    Raises:
      ValueError: arguments outside their range, groups that cannot be removed, a budget that cropping cannot meet.
    """
    checks.in_range("sparsity", sparsity, 0.0, 1.0, open_high=True)
    checks.one_of("cost", cost, ("params", "macs"))
    checks.positive_int("round_to", round_to)
    usages = {path: u for path, u in inspect(apply_fn, params, x).items() if u.layout is not None}
    shapes = {path: usage.shape for path, usage in usages.items()}
    free = _free(groups(apply_fn, params, x), shapes, names)
    costs = {path: math.prod(u.shape) if cost == "params" else u.macs for path, u in usages.items()}
    wanted = densities(costs, 1 - sparsity)
    kept = _fit(free, _fractions(free, wanted), costs, shapes, (1 - sparsity) * sum(costs.values()), round_to)
    removed = {}
    for number, (name, group) in enumerate(free.items()):
        order = np.asarray(jax.random.permutation(jax.random.fold_in(key, number), group.size))
        removed[name] = order >= kept[name]
    small = shrink(apply_fn, mask_groups(free, params, removed), x)
    widths = {m.path: kept[name] for name, group in free.items() for m in group.members if m.role == "output"}
    return Cropped(small.params, small.apply, widths, wanted, small.report)


def densities(costs: Mapping[Path, float], density: float, *, widen: bool = False) -> dict[Path, float]:
    """Water-filling: `min(1, mu / c_l)` with `sum_l p_l c_l = density * sum_l c_l`.

    Args:
      costs: of every layer, positive.
      density: kept part of the total cost, in (0, 1].
      widen: leave out the bound 1, so that cheap layers grow (PreConfig).
    """
    full: set[Path] = set()
    while True:
        left = density * sum(costs.values()) - sum(costs[path] for path in full)
        level = left / max(len(costs) - len(full), 1)
        over = {path for path, c in costs.items() if path not in full and level > c}
        if widen or not over:
            return {path: 1.0 if path in full else level / c for path, c in costs.items()}
        full |= over


def _free(
    found: Mapping[str, Group], shapes: Mapping[Path, tuple[int, ...]], names: Collection[str] | None
) -> dict[str, Group]:
    for name in names or ():
        checks.one_of("names", name, list(found))
        if found[name].frozen:
            raise ValueError(f"names: the channels of {name} cannot be removed: {found[name].frozen}.")
    fed = {name: [m for m in g.members if m.role == "output"] for name, g in found.items() if not g.frozen}
    # all outputs of one weight: the outer channels of a padded shortcut are a part
    own = [n for n, m in fed.items() if len(m) == 1 and m[0].indices.size == shapes[m[0].path][m[0].axis]]
    chosen = own if names is None else list(names)
    if not chosen:
        raise ValueError("names: no group of channels of this network can be cropped.")
    return {name: found[name] for name in chosen}


def _fractions(free: Mapping[str, Group], wanted: Mapping[Path, float]) -> dict[str, float]:
    """Kept fraction of each group, before scaling."""
    paths = list(wanted)
    meets = np.zeros((len(paths), len(free)))
    for column, group in enumerate(free.values()):
        for member in group.members:
            if member.path in wanted:
                meets[paths.index(member.path), column] += 1
    logs = np.linalg.lstsq(meets, np.log([wanted[path] for path in paths]), rcond=None)[0]
    return dict(zip(free, np.exp(logs).tolist()))


def _fit(
    free: Mapping[str, Group],
    fractions: Mapping[str, float],
    costs: Mapping[Path, float],
    shapes: Mapping[Path, tuple[int, ...]],
    budget: float,
    round_to: int,
) -> dict[str, int]:
    """Kept channels, for the largest common factor under which the network costs at most the budget."""

    def at(factor: float) -> dict[str, int]:
        return {name: _width(factor * fractions[name], free[name].size, round_to) for name in free}

    def total(kept: Mapping[str, int]) -> float:
        left = {path: np.ones(len(shape)) for path, shape in shapes.items()}
        for name, group in free.items():
            for m in (m for m in group.members if m.path in left):
                left[m.path][m.axis] -= (group.size - kept[name]) * m.indices.shape[1] / shapes[m.path][m.axis]
        return sum(c * float(np.prod(left[path])) for path, c in costs.items())

    low, high = 0.0, 1 / min(fractions.values())
    if total(at(low)) > budget + 1e-6:
        raise ValueError(f"sparsity leaves a cost of {budget:g}, and the narrowest network costs {total(at(low)):g}.")
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if total(at(middle)) <= budget + 1e-6 else (low, middle)
    return at(high) if total(at(high)) <= budget + 1e-6 else at(low)


def _width(fraction: float, size: int, round_to: int) -> int:
    return min(size, max(1, round(min(fraction, 1.0) * size / round_to)) * round_to)
