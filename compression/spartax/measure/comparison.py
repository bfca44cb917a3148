"""Methods against each other: families of operating points, Pareto fronts, and who is ahead by how much."""

import math
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

from spartax.measure import report
from spartax.measure.record import Record, chosen

SHARES = (1 / 2, 1 / 4, 1 / 8)  # of the dense cost, the budgets of the verdicts
NO_METHOD = ("role", "weights")  # options in words that do not say how a network was made small
NAMED = 3  # rivals of a verdict that are named


class Point(NamedTuple):
    """One operating point of one method, seeds put together.

    Attributes:
      family: the method without its operating point.
      row: bytes and accuracies, in percent with their spread.
      macs: thousands of multiply-adds of one image that are not by zero; a bound, not a speed.
      milliseconds: median time of a batch; None where it was not measured.
      masking: percent of the images by which the first route alone would have overstated robustness, with its spread.
      curve: eps -> accuracy in percent under attack of that radius, with its spread.
      sparsity: weight path -> fraction of zeros, the mean over seeds.
    """

    family: str
    row: report.Row
    macs: float
    milliseconds: float | None
    masking: tuple[float, float] | None
    curve: dict[float, tuple[float, float]]
    sparsity: dict[str, float]

    @property
    def role(self) -> str:
        """`"dense"`, `"baseline"` or `"method"`."""
        return self.row.records[0].role


Cost = Callable[[Point], float | None]
BYTES, MACS, TIME = "bytes on disk", "multiply-adds not by zero, thousands", "milliseconds for a batch"
COSTS: dict[str, Cost] = {
    BYTES: lambda point: point.row.size,
    MACS: lambda point: point.macs,
    TIME: lambda point: point.milliseconds,
}


def points(records: Sequence[Record]) -> list[Point]:
    """Every operating point.

    Raises:
      ValueError: no records.
    """
    if not records:
        raise ValueError("records must hold at least one record; got none.")
    names = families(records)
    return [_point(names[id(row.records[0])], row) for row in report.rows(records)]


def families(records: Sequence[Record]) -> dict[int, str]:
    """`id` of every record -> its method without the operating point.

    That is the option `method` (the name of the method where there is none), with every option that is a name and
    differs among the records of that method; options that are numbers are operating points.
    """
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(_method(record), []).append(record)
    found = {}
    for method, group in groups.items():
        words = dict.fromkeys(
            k for r in group for k, v in r.options.items() if isinstance(v, str) and k not in NO_METHOD
        )
        varying = [k for k in words if len({str(r.options.get(k)) for r in group}) > 1]
        for record in group:
            options = chosen(record.options)
            found[id(record)] = ", ".join([method, *(str(options[k]) for k in varying if k in options)])
    return found


def _method(record: Record) -> str:
    return record.options.get("method", record.method)


def _point(family: str, row: report.Row) -> Point:
    records, examples = row.records, row.records[0].examples
    times = [1000 * r.latency["median"] for r in records if r.latency]
    masked = [r.masking for r in records if r.masking is not None]
    radii = dict.fromkeys(float(eps) for r in records for eps in r.curve or {})
    curves = [{float(eps): value for eps, value in (r.curve or {}).items()} for r in records]
    values = {eps: [curve[eps] for curve in curves if eps in curve] for eps in sorted(radii)}
    paths = dict.fromkeys(path for r in records for path in r.sparsity)
    return Point(
        family,
        row,
        statistics.fmean(r.macs["nonzero"] for r in records) / 1000,
        statistics.fmean(times) if times else None,
        report.spread(masked, examples) if masked else None,
        {eps: report.spread(found, examples) for eps, found in values.items()},
        {path: statistics.fmean(r.sparsity[path] for r in records if path in r.sparsity) for path in paths},
    )


class Spot(NamedTuple):
    """A point in a picture of accuracy against a cost.

    Attributes:
      cost: in the units of its name.
      worst: accuracy after the worst attack, in percent; in a study without attacks the clean one.
      spread: of it.
      point: what it is.
    """

    cost: float
    worst: float
    spread: float
    point: Point


def attacked(found: Sequence[Point]) -> bool:
    """Whether an attack was run on any of them; else they are judged by their clean accuracy."""
    return any(point.row.worst is not None for point in found)


def spots(found: Sequence[Point], cost: Cost, *, clean: bool = False) -> list[Spot]:
    """The points that have this cost and were attacked, in order of cost.

    Args:
      found: the points.
      cost: one of `COSTS`.
      clean: judge all of them by their clean accuracy.
    """
    known = [(cost(p), p.row.clean if clean else p.row.worst, p) for p in found]
    placed = [Spot(x, *accuracy, p) for x, accuracy, p in known if x is not None and accuracy is not None]
    return sorted(placed, key=lambda spot: (spot.cost, -spot.worst))


def front(found: Sequence[Point], cost: Cost, *, clean: bool = False) -> list[Spot]:
    """The spots that no other beats: none costs no more and is as accurate (under attack), one of both strictly."""
    best, kept = -math.inf, []
    for spot in spots(found, cost, clean=clean):
        if spot.worst > best:
            best = spot.worst
            kept.append(spot)
    return kept


def verdicts(found: Sequence[Point]) -> list[str]:
    """Who is most robust within a half, a quarter, an eighth of the dense bytes and multiply-adds, and by how much.

    The best operating point of every family is compared with that of the family that comes first. The interval of a
    difference is the root of the sum of both squared: it takes the images of both as drawn apart, and is too wide
    where both were judged on the same. A lead within it is none. Where nothing was attacked it is about clean accuracy.
    """
    clean, lines = not attacked(found), []
    for name in (BYTES, MACS):
        placed = spots(found, COSTS[name], clean=clean)
        full = next((spot.cost for spot in placed if spot.point.role == "dense"), None)
        if full is None:
            return [f"No dense network was {'measured' if clean else 'attacked'}, so no budget can be named."]
        for share in SHARES:
            within = [s for s in placed if s.cost <= share * full and s.point.role != "dense"]
            if within:
                what = f"{'clean accuracy, ' if clean else ''}{name}, at most 1/{1 / share:.0f} of dense"
                lines.append(f"{what}: {_ahead(within)}")
    return lines


def _ahead(within: Sequence[Spot]) -> str:
    """The best, those it cannot be told apart from, and the best of those it leads."""
    best: dict[str, Spot] = {}
    for spot in sorted(within, key=lambda spot: -spot.worst):
        best.setdefault(spot.point.family, spot)
    first, *others = best.values()
    if not others:
        return f"only {_shown(first)} was measured."
    level = [spot for spot in others if not _leads(first, spot)]
    behind = [spot for spot in others if _leads(first, spot)]
    parts = []
    if level:
        more = f" and {len(level) - NAMED} more" if len(level) > NAMED else ""
        names = "; ".join(_shown(spot, f", {_gap(first, spot)} less") for spot in level[:NAMED])
        parts.append(f"cannot be told apart from {names}{more}")
    if behind:
        parts.append(f"is ahead of {_shown(behind[0])} by {_gap(first, behind[0])}")
    return f"{_shown(first)} {'. It '.join(parts)}."


def _leads(first: Spot, other: Spot) -> bool:
    return first.worst - other.worst > math.hypot(first.spread, other.spread)


def _gap(first: Spot, other: Spot) -> str:
    return f"{first.worst - other.worst:.1f} ±{math.hypot(first.spread, other.spread):.1f}"


def _shown(spot: Spot, more: str = "") -> str:
    return f"{spot.point.row.name} ({spot.worst:.1f} ±{spot.spread:.1f} %{more})"
