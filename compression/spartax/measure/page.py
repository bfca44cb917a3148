"""One HTML page of a report that needs nothing else: sortable tables, charts with values under the pointer."""

import html
from collections.abc import Sequence
from typing import Any

from spartax.measure import comparison, figures, report, svg
from spartax.measure.comparison import Point
from spartax.measure.record import Record

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1b1b1b;max-width:1600px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2.2rem}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.86rem}
.wide{overflow-x:auto}
th,td{padding:.2rem .6rem;border-bottom:1px solid #ddd;text-align:right;white-space:nowrap}
th:first-child,td:first-child{position:sticky;left:0;background:#fff}
.text{text-align:left}
th button{all:unset;cursor:pointer;font-weight:600}
th button:focus-visible{outline:2px solid #0072B2}
th[aria-sort=ascending] button::after{content:" ▲"}th[aria-sort=descending] button::after{content:" ▼"}
tr.baseline td,tr.dense td{color:#666}
.charts{display:flex;flex-wrap:wrap;gap:1rem}figure{margin:0;flex:1 1 380px;max-width:600px}
svg{width:100%;height:auto;font:11px system-ui,sans-serif}svg text{fill:#555}.grid{stroke:#e4e4e4}
svg [data-tip]{cursor:pointer}.legend span{margin-right:.9rem;font-size:.8rem;white-space:nowrap}
.legend svg{width:1em;height:1em;vertical-align:-.12em;margin-right:.3em}
#tip{position:fixed;pointer-events:none;background:#1b1b1b;color:#fff;font-size:.8rem;padding:.2rem .5rem;
border-radius:4px;white-space:pre;display:none}
"""

SCRIPT = """
"use strict";
function compared(a, b) {
  const x = parseFloat(a), y = parseFloat(b);
  if (isNaN(x) || isNaN(y)) return isNaN(x) && isNaN(y) ? String(a).localeCompare(String(b)) : isNaN(x) ? 1 : -1;
  return x - y;
}
function sortBy(table, column) {
  const heads = table.tHead.rows[0].cells, body = table.tBodies[0];
  const down = heads[column].getAttribute("aria-sort") === "ascending";
  for (const head of heads) head.removeAttribute("aria-sort");
  heads[column].setAttribute("aria-sort", down ? "descending" : "ascending");
  const value = row => row.cells[column].getAttribute("data-value");
  const rows = Array.from(body.rows), filled = rows.filter(row => value(row) !== "");
  filled.sort((a, b) => (down ? -1 : 1) * compared(value(a), value(b)));
  for (const row of filled.concat(rows.filter(row => value(row) === ""))) body.appendChild(row);
}
for (const table of document.querySelectorAll("table")) {
  Array.from(table.tHead.rows[0].cells).forEach((head, column) =>
    head.firstElementChild.addEventListener("click", () => sortBy(table, column)));
}
const tip = document.getElementById("tip");
document.addEventListener("pointermove", event => {
  const text = event.target.getAttribute && event.target.getAttribute("data-tip");
  tip.style.display = text ? "block" : "none";
  if (!text) return;
  tip.textContent = text;
  tip.style.left = Math.min(event.clientX + 12, window.innerWidth - tip.offsetWidth - 4) + "px";
  tip.style.top = event.clientY + 14 + "px";
});
"""


def page(groups: Sequence[Sequence[Record]], title: str = "Results") -> str:
    """The page as text: for every group of records its verdicts, table, charts and layer-wise sparsity.

    Args:
      groups: records of one network, data set and threat each.
      title: above all.

    Raises:
      ValueError: no records.
    """
    if not groups:
        raise ValueError("groups must hold at least one group of records; got none.")
    body = "".join(_section(comparison.points(group), group) for group in groups)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{STYLE}</style></head>'
        f'<body><h1>{html.escape(title)}</h1>{body}<div id="tip" role="tooltip"></div>'
        f"<script>{SCRIPT}</script></body></html>\n"
    )


def _section(points: Sequence[Point], records: Sequence[Record]) -> str:
    lists = [_list(comparison.verdicts(points)), _list(report.notes(records))]
    charts = [*_fronts(points), *_curves(points)]
    layers = _layers(points)
    return (
        f"<h2>{html.escape(figures.heading(points))}</h2>{lists[0]}{_results(points)}"
        f'<div class="charts">{"".join(charts)}</div>{layers}{lists[1]}'
    )


def _list(lines: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{html.escape(line)}</li>' for line in lines)}</ul>"


def _results(points: Sequence[Point]) -> str:
    attacks = list(dict.fromkeys(name for p in points for name in p.row.robust))
    header = ["method", "family", "bytes", "MACs k", "nonzero k", "ms/batch", "clean %", "worst %", "masking"]
    header += [f"{a} %" for a in attacks]  # what a narrow window leaves to scrolling
    rows = []
    for point in points:
        row = point.row
        macs = row.records[0].macs["run"] / 1000
        numbers = [_number(row.size, ",.0f"), _number(macs, ",.0f"), _number(point.macs, ",.0f")]
        numbers.append(_number(point.milliseconds, ".3g"))
        spreads = [row.clean, row.worst, point.masking, *(row.robust.get(name) for name in attacks)]
        cells = [_text(row.name), _text(point.family), *numbers, *(_spread(value) for value in spreads)]
        rows.append((point.role, cells))
    return _table(header, rows)


def _layers(points: Sequence[Point]) -> str:
    known = [p for p in points if any(p.sparsity.values())]
    if not known:
        return ""
    paths = list(dict.fromkeys(path for p in known for path in p.sparsity))
    rows = []
    for point in known:
        shares = [100 * point.sparsity[path] if path in point.sparsity else None for path in paths]
        cells = [_shaded(share, f"{point.row.name}, {path}") for share, path in zip(shares, paths)]
        rows.append((point.role, [_text(point.row.name), *cells]))
    return f"<h3>Zeros in each weight (%)</h3>{_table(['method', *paths], rows)}"


Cell = tuple[str, str, str]  # what sorts, what is shown, further attributes
LEFT = ' class="text"'


def _text(value: str) -> Cell:
    return value, value, LEFT


def _number(value: float | None, form: str) -> Cell:
    return ("", "", "") if value is None else (repr(float(value)), format(value, form), "")


def _spread(value: tuple[float, float] | None) -> Cell:
    return ("", "", "") if value is None else (repr(float(value[0])), f"{value[0]:.1f} ±{value[1]:.1f}", "")


def _shaded(share: float | None, what: str) -> Cell:
    if share is None:
        return "", "", ""
    shade = f' style="background:rgba(0,114,178,{share / 130:.2f})" data-tip="{html.escape(what)}: {share:.2f} %"'
    return repr(share), f"{share:.0f}", shade


def _table(header: Sequence[str], rows: Sequence[tuple[str, Sequence[Cell]]]) -> str:
    sides = [LEFT if more == LEFT else "" for _, _, more in rows[0][1]]
    names = [f'<button type="button">{html.escape(name)}</button>' for name in header]
    head = "".join(f'<th scope="col"{side}>{name}</th>' for name, side in zip(names, sides))
    body = "".join(f'<tr class="{role}">{"".join(_cell(cell) for cell in cells)}</tr>' for role, cells in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(cell: Cell) -> str:
    value, shown, more = cell
    return f'<td data-value="{html.escape(value)}"{more}>{html.escape(shown)}</td>'


def _fronts(points: Sequence[Point]) -> list[str]:
    charts, style, clean = [], figures.styles(points), not comparison.attacked(points)
    others = [p for p in points if style[p.family] == figures.OTHER]
    text = f"{len({p.family for p in others})} less accurate families"
    for name, cost in comparison.COSTS.items():
        behind = _spots(comparison.spots(others, cost, clean=clean), clean)
        series = [_series(text, figures.OTHER, behind, line=False)]
        for family, look in style.items():
            if look == figures.OTHER:
                continue
            own = comparison.spots([p for p in points if p.family == family], cost, clean=clean)
            faint = [(s.cost, s.point.row.clean[0], _tip(s.point, "clean", *s.point.row.clean)) for s in own]
            series += [] if clean else [_series("", look, faint, line=False, faint=True)]
            series.append(_series(family, look, _spots(own, clean), line=name != comparison.TIME))
        best = _spots(comparison.front(points, cost, clean=clean), clean)
        series.append(svg.Series("Pareto front", "#000", best, marks=False, steps=True))
        if any(s.points for s in series):
            label = "clean accuracy (%)" if clean else "accuracy (%); faint: clean"
            charts.append(svg.chart(series, name, label, log=True))
    return charts


def _series(name: str, look: tuple[str, str], spots: list[tuple[float, float, str]], **more: bool) -> svg.Series:
    color, marker = look
    return svg.Series(name, color, spots, marker=marker, **more)


def _spots(spots: Sequence[comparison.Spot], clean: bool) -> list[tuple[float, float, str]]:
    what = "clean" if clean else "under attack"
    return [(s.cost, s.worst, _tip(s.point, what, s.worst, s.spread)) for s in spots]


def _curves(points: Sequence[Point]) -> list[str]:
    style = figures.styles(points)
    series, named = [], set()
    for point in points:
        if len(point.curve) > 1:
            spots: list[Any] = [
                (eps, v[0], f"{point.row.name}\neps {eps:.4g}: {v[0]:.1f} ±{v[1]:.1f} %")
                for eps, v in point.curve.items()
            ]
            look = style[point.family]
            family = "less accurate families" if look == figures.OTHER else point.family
            series.append(_series("" if family in named else family, look, spots, faint=point.role == "baseline"))
            named.add(family)
    return [svg.chart(series, figures.UNIT, "accuracy under attack (%)")] if series else []


def _tip(point: Point, what: str, mean: float, spread: float) -> str:
    lines = [
        point.row.name,
        f"{what} {mean:.1f} ±{spread:.1f} %",
        f"{point.row.size:,.0f} bytes, {point.macs:,.0f} k MACs",
    ]
    return "\n".join(lines + ([f"{point.milliseconds:.3g} ms"] if point.milliseconds is not None else []))
