"""Charts as SVG text: points with values that show when the pointer is on them, lines, a legend."""

import functools
import html
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

SIZE = 10  # of a mark
RADII = {"o": 4.5, ".": 2.2}  # of those that are round
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 560, 340, 48, 12, 12, 44


class Series(NamedTuple):
    """Points that belong together.

    Attributes:
      name: in the legend; "" for none.
      color: CSS color.
      points: `(x, y, what is shown on them)`; y is in percent.
      line: whether they are joined.
      faint: whether they stay in the background.
      marks: whether the points are marked; a line without marks is dashed.
      steps: whether the line keeps the height of a point until the next.
      marker: shape of the marks, as Matplotlib calls it.
    """

    name: str
    color: str
    points: Sequence[tuple[float, float, str]]
    line: bool = True
    faint: bool = False
    marks: bool = True
    steps: bool = False
    marker: str = "o"


def chart(series: Sequence[Series], x_label: str, y_label: str, *, log: bool = False) -> str:
    """One chart with y from 0 to 100.

    Args:
      series: at least one with a point.
      x_label: under the horizontal axis.
      y_label: above the vertical axis.
      log: whether the horizontal axis is logarithmic; what is not above zero then stands on its left edge.

    Raises:
      ValueError: no point.
    """
    xs = [x for s in series for x, _, _ in s.points]
    if not xs:
        raise ValueError("series must hold at least one point; got none.")
    inside = [x for x in xs if x > 0 or not log] or [1.0]
    place, ticks = _scale(min(inside), max(inside), log)
    marks = [_grid(ticks, place)]
    marks += [_drawn(s, place) for s in sorted(series, key=lambda s: not s.faint)]
    labels = (
        f'<text x="{(LEFT + WIDTH) / 2:.0f}" y="{HEIGHT - 8}" text-anchor="middle">{html.escape(x_label)}</text>'
        f'<text x="{LEFT + 4}" y="{TOP + 10}">{html.escape(y_label)}</text>'
    )
    legend = "".join(f"<span>{_key(s)}{html.escape(s.name)}</span>" for s in series if s.name and s.points)
    opened = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(x_label)}">'
    return f'<figure>{opened}{"".join(marks)}{labels}</svg><figcaption class="legend">{legend}</figcaption></figure>'


def _scale(low: float, high: float, log: bool) -> tuple[Callable[[float], float], list[float]]:
    """Pixels of an x, and the ticks: 1, 2, 5 times powers of ten, five or so of them."""
    to = math.log10 if log else float
    first, last = to(low), to(high)
    margin = 0.06 * (last - first) or 0.5
    first, last = first - margin, last + margin
    inner = WIDTH - LEFT - RIGHT
    decades = range(math.floor(math.log10(low or high or 1.0)) - 1, math.ceil(math.log10(high or 1.0)) + 1)
    if log:
        ticks = [m * 10.0**d for d in decades for m in (1, 2, 5) if first <= to(m * 10.0**d) <= last]
    else:
        step = next(m * 10.0**d for d in range(-12, 13) for m in (1, 2, 5) if (last - first) / (m * 10.0**d) <= 7)
        ticks = [n * step for n in range(math.ceil(first / step), math.floor(last / step) + 1)]
    return lambda x: LEFT + (to(x) - first) / (last - first) * inner if x > 0 or not log else LEFT, ticks


def _height(y: float) -> float:
    return HEIGHT - BOTTOM - min(max(y, 0.0), 100.0) / 100 * (HEIGHT - TOP - BOTTOM)


def _grid(ticks: Sequence[float], place: Callable[[float], float]) -> str:
    lines = []
    for y in range(0, 101, 20):
        at = _height(y)
        lines.append(f'<path class="grid" d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}"/>')
        lines.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{y}</text>')
    for x in ticks:
        at = place(x)
        lines.append(f'<path class="grid" d="M{at:.1f} {TOP}V{HEIGHT - BOTTOM}"/>')
        lines.append(f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{short(x)}</text>')
    return "".join(lines)


def _drawn(series: Series, place: Callable[[float], float]) -> str:
    spots = [(place(x), _height(y), tip) for x, y, tip in series.points]
    opacity, parts = 0.3 if series.faint else 1.0, []
    if series.line and len(spots) > 1:
        corners = [f"H{x:.1f}V{y:.1f}" if series.steps else f"L{x:.1f} {y:.1f}" for x, y, _ in spots[1:]]
        path = f"{spots[0][0]:.1f} {spots[0][1]:.1f}{''.join(corners)}"
        dashes = "" if series.marks else ' stroke-dasharray="5 4"'
        parts.append(f'<path d="M{path}" fill="none" stroke="{series.color}" stroke-width="1.5"{dashes}/>')
    for x, y, tip in spots if series.marks else ():
        text = html.escape(tip)
        parts.append(_mark(series, x, y, f' data-tip="{text}" aria-label="{text}"'))
    return f'<g opacity="{opacity}">{"".join(parts)}</g>'


def _mark(series: Series, x: float, y: float, more: str = "") -> str:
    if series.marker in RADII:
        shape = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{RADII[series.marker]}"'
    else:
        shape = f'<path transform="translate({x:.1f} {y:.1f})" d="{_outline(series.marker)}"'
    return f'{shape} fill="{series.color}"{more}/>'


@functools.cache
def _outline(marker: str) -> str:
    """Path of a marker of Matplotlib around (0, 0), so that page and pictures show the same."""
    from matplotlib.markers import MarkerStyle  # slow to import

    style = MarkerStyle(marker)
    corners: Any = style.get_path().transformed(style.get_transform()).to_polygons()[0]
    return f"M{'L'.join(f'{SIZE * x:.1f} {-SIZE * y:.1f}' for x, y in corners)}Z"


def _key(series: Series) -> str:
    """The mark of a series, or a piece of its dashed line, for the legend."""
    mark = (
        _mark(series, 0, 0) if series.marks else f'<path d="M-6 0H6" stroke="{series.color}" stroke-dasharray="5 2"/>'
    )
    return f'<svg viewBox="-7 -7 14 14" aria-hidden="true">{mark}</svg>'


def short(value: float) -> str:
    """A number in few signs: `20k`, `1.5M`, `0.05`."""
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= scale:
            return f"{value / scale:.3g}{unit}"
    return f"{value:.3g}"
