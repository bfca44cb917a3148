"""`mixed`: every weight on a grid of its own, together least sensitive under a budget of bytes."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax.numpy as jnp

from spartax import catalog, checks, knapsack, tree
from spartax.arrays import dense, nbytes, pack
from spartax.quantize.quantize import Floats, quantize
from spartax.quantize.records import Calibration, Candidates, Grid, Rounding, Sensitivity
from spartax.records import Array, Evidence, Info, Params, Path, Transform, Weights


class Mixed(NamedTuple):
    """State of `mixed`.

    Attributes:
      floats: for each grid, the float arrays of the weights that are on it.
      losses: path -> what its weight loses on each grid, float32 `[grids]`.
      originals: what the losses are measured against, dense.
    """

    floats: tuple[Floats, ...]
    losses: dict[Path, Array]
    originals: Weights


def mixed(
    grids: Sequence[Grid],
    sensitivity: Sensitivity,
    *,
    budget: int | Grid | None = None,
    mean_bits: float | None = None,
    calibration: Calibration | None = None,
    rounding: Rounding | None = None,
) -> Transform:
    """Quantize each selected weight on the grid that the sensitivity gives it under a budget for all of them.

    `min sum_l loss_l(g_l)` subject to `sum_l bytes_l(g_l) <= budget`, by dynamic programming, exactly where 10,000
    bytes or fewer are to spend beyond the smallest grids, else on a table of 10,000 steps. Bytes are those of the
    packed leaf with its scales. The grids are chosen once, by `init`. `info` has, for each weight, `bits`,
    the `losses` on every grid, the `predicted` one of its own, and, where the sensitivity can be measured, the sum of
    all predictions against what all weights cost at once: `predicted_together`, `measured_together`.

    Args:
      grids: the choices, such as `[quantize.integer(bits) for bits in (2, 3, 4, 6, 8)]`.
      sensitivity: what a weight loses on a grid, such as `quantize.hessian_trace()`.
      budget: bytes of all selected weights together, or one of the grids: the bytes that they take on it.
      mean_bits: the budget as bits for each entry, scales included, so that a bit and a little more buys what a grid of
        that width takes alone. Give this or `budget`.
      calibration: of every grid; see `quantize`.
      rounding: of every grid; see `quantize`.

    Raises:
      ValueError: no grids, no budget or two, one that is a grid but none of these; a calibration or rounding that does
        not apply to a grid; at use, a budget below all weights on their smallest grids, and what `quantize` and the
        sensitivity raise.
    """
    _check(grids, budget, mean_bits)
    transforms = [quantize(grid, calibration, rounding) for grid in grids]
    needs = sensitivity.needs.union(*(t.needs for t in transforms))

    def init(params: Params, evidence: Evidence) -> tuple[Params, Mixed]:
        catalog.require(needs, evidence)
        blanks, floats = zip(*(t.init(params, evidence) for t in transforms))
        weights = {path: dense(w) for path, w in tree.pick(params, evidence.layouts).items()}
        costs = _costs(blanks, weights)
        most = sum(row[grids.index(budget)] for row in costs.values()) if isinstance(budget, Grid) else budget
        limit = _limit(most, mean_bits, sum(w.size for w in weights.values()), costs)
        filled = [t.update(blank, state, evidence)[0] for t, blank, state in zip(transforms, blanks, floats)]
        candidates = _candidates(filled, weights)
        losses, costs = sensitivity.losses(weights, candidates, evidence), _costs(filled, weights)
        picked = knapsack.choose([losses[p] for p in weights], [costs[p] for p in weights], limit)
        chosen = dict(zip(weights, picked))
        own = tuple({p: f[p] for p, i in chosen.items() if i == grid} for grid, f in enumerate(floats))
        kept = {path: jnp.asarray(row, jnp.float32) for path, row in losses.items()}
        return tree.replace(params, {p: candidates[p][i] for p, i in chosen.items()}), Mixed(own, kept, weights)

    def update(params: Params, state: Mixed, evidence: Evidence) -> tuple[Params, Mixed, Info]:
        catalog.require(needs, evidence)
        losses = {path: [float(v) for v in row] for path, row in state.losses.items()}
        found: Info = {}
        for number, (transform, floats) in enumerate(zip(transforms, state.floats)):
            params, _, info = transform.update(params, floats, evidence)
            for path, entry in info.items():
                found[path] = {**entry, "method": "mixed", "losses": losses[path], "predicted": losses[path][number]}
        found = {path: found[path] for path in losses}
        if sensitivity.together is not None:
            replaced = {path: dense(w) for path, w in tree.pick(params, state.losses).items()}
            together = {
                "predicted_together": sum(entry["predicted"] for entry in found.values()),
                "measured_together": sensitivity.together(state.originals, replaced, evidence),
            }
            found = {path: {**entry, **together} for path, entry in found.items()}
        return params, state, found

    return Transform(needs, init, update)


def _check(grids: Sequence[Grid], budget: int | Grid | None, mean_bits: float | None) -> None:
    if not grids:
        raise ValueError("grids must hold at least one grid, such as quantize.integer(4).")
    if (budget is None) == (mean_bits is None):
        raise ValueError("mixed takes one budget: give either budget (bytes) or mean_bits.")
    if isinstance(budget, Grid):
        checks.one_of("budget", budget, grids)
        return
    for name, value in {"budget": budget, "mean_bits": mean_bits}.items():
        if value is not None:
            checks.positive(name, value)


def _candidates(trees: Sequence[Params], paths: Iterable[Path]) -> Candidates:
    picked = [tree.pick(params, paths) for params in trees]
    return {path: [weights[path] for weights in picked] for path in paths}


def _costs(trees: Sequence[Params], paths: Iterable[Path]) -> dict[Path, list[int]]:
    """Bytes of each weight on each grid."""
    return {path: [nbytes(pack(leaf)) for leaf in leaves] for path, leaves in _candidates(trees, paths).items()}


def _limit(budget: int | None, mean_bits: float | None, entries: int, costs: dict[Path, list[int]]) -> float:
    """The budget in bytes, which must be enough for the smallest grids."""
    name, given, unit = ("mean_bits", mean_bits, entries / 8) if budget is None else ("budget", budget, 1.0)
    least = sum(min(row) for row in costs.values())
    if given is None or given * unit < least:
        raise ValueError(
            f"{name} must be at least {least / unit:.6g}, every weight on its smallest grid with its scales; "
            f"got {given:.6g}. Give smaller grids, or more."
        )
    return given * unit
