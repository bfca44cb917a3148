"""Methods against each other: families of operating points, Pareto fronts, and who is ahead by how much."""

import math
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

from spartax.measure import report
from spartax.measure.record import Record, chosen

SHARES = (1 / 2, 1 / 4, 1 / 8)  # of the dense cost, the budgets of the verdicts


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

    @property
    def method(self) -> str:
        """The method, all its variants together."""
        return _method(self.row.records[0])


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
        words = dict.fromkeys(k for r in group for k, v in r.options.items() if isinstance(v, str))
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
    """A point in a picture of accuracy under attack against a cost.

    Attributes:
      cost: in the units of its name.
      worst: accuracy after the worst attack, in percent.
      spread: of it.
      point: what it is.
    """

    cost: float
    worst: float
    spread: float
    point: Point


def spots(found: Sequence[Point], cost: Cost) -> list[Spot]:
    """The points that have this cost and were attacked, in order of cost."""
    known = [(cost(p), p.row.worst, p) for p in found]
    placed = [Spot(x, *worst, p) for x, worst, p in known if x is not None and worst is not None]
    return sorted(placed, key=lambda spot: (spot.cost, -spot.worst))


def front(found: Sequence[Point], cost: Cost) -> list[Spot]:
    """The spots that no other beats: none costs no more and is as accurate under attack, one of both strictly."""
    best, kept = -math.inf, []
    for spot in spots(found, cost):
        if spot.worst > best:
            best = spot.worst
            kept.append(spot)
    return kept


def verdicts(found: Sequence[Point]) -> list[str]:
    """Who is most robust within a half, a quarter, an eighth of the dense bytes and multiply-adds, and by how much.

    The best is compared with the best of any other method. The spread of a difference is the root of the sum of both
    squared; a lead within it is none.
    """
    lines = []
    for name in (BYTES, MACS):
        placed = spots(found, COSTS[name])
        full = next((spot.cost for spot in placed if spot.point.role == "dense"), None)
        if full is None:
            return ["No dense network was attacked, so no budget can be named."]
        for share in SHARES:
            within = [s for s in placed if s.cost <= share * full and s.point.role != "dense"]
            if within:
                lines.append(f"{name}, at most 1/{1 / share:.0f} of dense: {_ahead(within)}")
    return lines


def _ahead(within: Sequence[Spot]) -> str:
    ranked = sorted(within, key=lambda spot: -spot.worst)
    first = ranked[0]
    second = next((spot for spot in ranked if spot.point.method != first.point.method), None)
    if second is None:
        return f"only {_shown(first)} was measured."
    gap, spread = first.worst - second.worst, math.hypot(first.spread, second.spread)
    if gap > spread:
        return f"{_shown(first)} is ahead of {_shown(second)} by {gap:.1f} ±{spread:.1f}."
    return f"{_shown(first)} and {_shown(second)} cannot be told apart ({gap:.1f} ±{spread:.1f})."


def _shown(spot: Spot) -> str:
    return f"{spot.point.row.name} ({spot.worst:.1f} ±{spot.spread:.1f} %)"
