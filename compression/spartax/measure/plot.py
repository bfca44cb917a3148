"""The picture of a report: robust accuracy against bytes."""

import itertools
import os
from collections.abc import Callable, Sequence
from typing import Any

from spartax.measure import report
from spartax.measure.record import Record

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#882255", "#44AA99", "#999933", "#332288")
MARKERS = "oD^vP*X<>p"
GRAY = "#555555"
GRAYS = (GRAY, "#999999")


def plot(records: Sequence[Record], path: str | os.PathLike, title: str = "") -> None:
    """Write a PNG: accuracy after the worst attack (filled) and clean (faint) against bytes on disk, log axis.

    The dense network and the random baseline are drawn in gray with lines across, so that every method is seen
    between them. Bars are the spread of the table.

    Args:
      records: at least one.
      path: file to write.
      title: printed above.

    Raises:
      ValueError: no records, or one of a network that was not attacked.
    """
    if not records:
        raise ValueError("records must hold at least one record; got none.")
    for record in records:
        if not record.robust or record.worst is None:
            raise ValueError(f"records must hold attacked networks; no attack was run on {record.method!r}.")
    import matplotlib.figure  # slow to import

    figure = matplotlib.figure.Figure(figsize=(9.0, 5.2), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    table = sorted(report.rows(records), key=lambda row: -row.size)
    styles = map(style, itertools.count())
    gap = (
        table[0].size * table[min(1, len(table) - 1)].size
    ) ** 0.5  # between the two largest there is room for a word
    for row in table:
        role = row.records[0].role
        color, marker = next(styles) if role == "method" else (GRAY, "s" if role == "dense" else "x")
        height = _point(axes, row, color, marker)
        if role != "method":
            axes.axhline(height, color=GRAY, linewidth=0.9, linestyle="-" if role == "dense" else ":", zorder=1)
            place = {"xytext": (0, 3), "textcoords": "offset points", "ha": "center"}
            axes.annotate(row.name, (gap, height), fontsize=8, color=GRAY, **place)
    _decorate(axes, records[0], title)
    figure.savefig(path)


def style(number: int) -> tuple[str, str]:
    """Color and marker of one of many things shown together; a hundred differ."""
    return COLORS[number % len(COLORS)], MARKERS[(number + number // len(COLORS)) % len(MARKERS)]


def gray(number: int) -> tuple[str, str]:
    """The same of one of many baselines, in gray; twenty differ, and none is the square of the dense network."""
    shade = GRAYS[number // len(MARKERS) % len(GRAYS)]
    return shade, MARKERS[(number + MARKERS.index("X")) % len(MARKERS)]


def _point(axes: Any, row: report.Row, color: str, marker: str) -> float:
    """Draw one row; returns its accuracy after the worst attack."""
    height, spread = row.worst or (0.0, 0.0)  # never None here: `plot` refuses what was not attacked
    axes.errorbar(
        row.size,
        height,
        yerr=spread,
        fmt=marker,
        color=color,
        markersize=8,
        capsize=3,
        elinewidth=1,
        label=f"{row.name}: {height:.0f} % at {short(row.size)}",
        zorder=3,
    )
    axes.plot([row.size] * 2, [height, row.clean[0]], "-", color=color, linewidth=1, alpha=0.28, zorder=1)
    axes.plot(row.size, row.clean[0], marker, color=color, markersize=7, alpha=0.28, zorder=2)
    return height


def _decorate(axes: Any, first: Record, title: str) -> None:
    log_axis(axes, short)
    axes.set_ylim(0, 102)
    axes.set_xlabel("size of the checkpoint on disk")
    axes.set_ylabel("accuracy (%)")
    axes.grid(alpha=0.25)
    axes.set_title(title or f"{first.model} on {first.data}", loc="left")
    heading = f"filled: after the worst attack\n({report.threat(first)})\nfaint: clean"
    axes.legend(
        title=heading, alignment="left", loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8
    )


def log_axis(axes: Any, text: Callable[[float], str], marks: Sequence[float] = (1.0, 2.0, 3.0, 5.0)) -> None:
    """A logarithmic x axis with these marks in every power of ten, in words."""
    from matplotlib import ticker

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(ticker.LogLocator(base=10, subs=marks))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: text(value)))
    axes.xaxis.set_minor_formatter(ticker.NullFormatter())


def short(size: float) -> str:
    """Bytes in at most four signs and a unit: `950 B`, `4.2 kB`, `1.3 MB`."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size:.3g} B"
