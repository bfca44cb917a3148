"""Pictures of a study: Pareto fronts, security curves, masking gaps, layer-wise sparsity, as PNG files.

Each function says whether there was something to draw; where there was not, no file is written.
"""

import itertools
import os
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from spartax.measure import comparison, report
from spartax.measure.comparison import Point
from spartax.measure.plot import COLORS, GRAY, gray, log_axis, short, style

ACROSS = 4  # panels beside each other
MOST = 60  # rows of a picture that can be read
FAMILIES = 18  # in a legend that can be read
OTHER = ("#bfbfbf", ".")  # color and marker of the families beyond them
UNIT = "eps (of the pixel range [0, 1])"


def fronts(points: Sequence[Point], path: str | os.PathLike, title: str = "") -> bool:
    """Accuracy under attack (filled) and clean (faint) against bytes, multiply-adds and time; the fronts are black.

    Where nothing was attacked the clean accuracy is the filled one. Of many families the most accurate have names. A
    cost of zero has no place on a logarithmic axis: lines to it leave the panel on the left.
    """
    clean = not comparison.attacked(points)
    costs = {n: c for n, c in comparison.COSTS.items() if any(c(p) is not None for p in points)}
    figure, panels = _figure(len(costs), 5.0, title)
    chosen = styles(points)
    named = [family for family, look in chosen.items() if look != OTHER]
    for axes, (name, cost) in zip(panels, costs.items()):
        for family, (color, marker) in chosen.items():
            own = comparison.spots([p for p in points if p.family == family], cost, clean=clean)
            x, y, spread = [s.cost for s in own], [s.worst for s in own], [s.spread for s in own]
            if family not in named:
                axes.plot(x, y, marker, color=color, linestyle="none", zorder=0)
                continue
            joined = "none" if name == comparison.TIME else "-"  # times do not follow operating points
            look = {"marker": marker, "color": color, "markersize": 5, "capsize": 2, "linewidth": 1}
            axes.errorbar(x, y, spread, label=family, linestyle=joined, **look)
            if not clean:
                axes.plot(x, [s.point.row.clean[0] for s in own], marker, color=color, alpha=0.25, linestyle="none")
        if len(named) < len(chosen):
            color, marker = OTHER
            text = f"{len(chosen) - len(named)} less accurate families"
            axes.plot([], [], marker, color=color, linestyle="none", label=text)
        best = comparison.front(points, cost, clean=clean)
        axes.step([s.cost for s in best], [s.worst for s in best], "k-", where="post", alpha=0.6, zorder=1)
        for spot in comparison.spots([p for p in points if p.role == "dense"], cost, clean=clean):
            axes.axhline(spot.worst, color=GRAY, linewidth=0.8, zorder=1)
        log_axis(axes, short if name == comparison.BYTES else "{:g}".format, (1.0, 2.0, 5.0))
        axes.set(xlabel=name, ylim=(0, 102))
        axes.grid(alpha=0.25)
    return _finish(figure, panels, "clean accuracy (%)" if clean else "accuracy (%); faint: clean", path)


def security_curves(points: Sequence[Point], path: str | os.PathLike, title: str = "") -> bool:
    """A panel for each family: accuracy against the radius of the attack, dense in gray; darker is larger on disk.

    Of many families the most accurate have panels.
    """
    known = [p for p in points if len(p.curve) > 1]
    families = list(dict.fromkeys(p.family for p in known if p.role != "dense"))
    names = _named(known, families, clean=False)
    if not names:
        return False
    told = _told(title, "most accurate", names, families, "families")
    figure, panels = _figure(len(names), 3.2, told)
    for axes, family in zip(panels, names):
        own = sorted((p for p in known if p.family == family), key=lambda p: p.row.size)
        for number, point in enumerate(own, 1):
            x, y = list(point.curve), [v[0] for v in point.curve.values()]
            axes.plot(x, y, "o-", color=COLORS[0], alpha=number / len(own), markersize=3, label=point.row.name)
        for point in (p for p in known if p.role == "dense"):
            axes.plot(
                list(point.curve), [v[0] for v in point.curve.values()], "s--", color=GRAY, markersize=3, label="dense"
            )
        axes.set(title=family, xlabel=UNIT, ylim=(0, 102))
        axes.legend(fontsize=6, frameon=False)
        axes.grid(alpha=0.25)
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    return _finish(figure, panels, "accuracy under attack (%)", path, legend=False)


def masking(points: Sequence[Point], path: str | os.PathLike, title: str = "") -> bool:
    """Bars: by how much the gradients of the network itself overstate its robustness; the longest of many."""
    known = [(p.row.name, *p.masking) for p in points if p.masking is not None]
    kept = _largest(known, lambda gap: gap[1])
    if not kept:
        return False
    figure, (axes,) = _figure(1, 7.0, _told(title, "largest", kept, known), height=1.5 + 0.22 * len(kept))
    names, means, spreads = zip(*kept)
    below = [min(mean, spread) for mean, spread in zip(means, spreads)]  # a gap is never negative
    axes.barh(range(len(kept)), means, xerr=(below, spreads), color=COLORS[0], alpha=0.7)
    axes.set(xlabel="robust accuracy claimed by the first route alone, minus the worst (points)")
    axes.set_yticks(range(len(kept)), names, fontsize=7)
    axes.set_ylim(len(kept) - 0.4, -0.6)
    figure.savefig(path)
    return True


def layer_sparsity(points: Sequence[Point], path: str | os.PathLike, title: str = "") -> bool:
    """A row for each operating point, the most accurate of many, a column for each weight: the fraction of zeros."""
    known = [p for p in points if any(p.sparsity.values())]
    kept = _largest(known, lambda p: (p.row.worst or p.row.clean)[0])
    if not kept:
        return False
    paths = list(dict.fromkeys(path for p in kept for path in p.sparsity))
    height = 1.8 + 0.22 * len(kept)
    figure, (axes,) = _figure(1, 4.0 + 0.5 * len(paths), _told(title, "most accurate", kept, known), height=height)
    values = [[100 * p.sparsity.get(path, 0.0) for path in paths] for p in kept]
    shown = axes.imshow(values, aspect="auto", vmin=0, vmax=100, cmap="viridis")
    figure.colorbar(shown, label="zeros (%)")
    axes.set_xticks(range(len(paths)), paths, rotation=60, ha="right", fontsize=7)
    axes.set_yticks(range(len(kept)), [p.row.name for p in kept], fontsize=7)
    figure.savefig(path)
    return True


def _named(points: Sequence[Point], families: Sequence[str], clean: bool) -> list[str]:
    """The dense network, and the families whose best operating points are the most accurate."""
    best = dict.fromkeys(families, 0.0)
    for point in (p for p in points if p.family in best):
        accuracy = point.row.clean if clean else point.row.worst
        height = 101.0 if point.role == "dense" else 0.0 if accuracy is None else accuracy[0]
        best[point.family] = max(best[point.family], height)
    return _largest(families, lambda family: best[family], FAMILIES)


def _largest(rows: Sequence[Any], value: Callable[[Any], float], most: int = MOST) -> list[Any]:
    """At most so many of the rows, those of the largest value, in their order."""
    ranked = sorted(range(len(rows)), key=lambda number: -value(rows[number]))[:most]
    return [rows[number] for number in sorted(ranked)]


def _told(title: str, which: str, kept: Sequence[Any], known: Sequence[Any], what: str = "rows") -> str:
    return title if len(kept) == len(known) else f"{title}\nthe {len(kept)} {which} of {len(known)} {what}"


def styles(points: Sequence[Point]) -> dict[str, tuple[str, str]]:
    """Family -> color and marker: dense and baselines are gray, and of many families the less accurate are `OTHER`."""
    roles: dict[str, str] = {}
    for point in points:
        roles.setdefault(point.family, point.role)
    named = _named(points, list(roles), clean=not comparison.attacked(points))
    colors, grays = map(style, itertools.count()), map(gray, itertools.count())
    found = dict.fromkeys(roles, OTHER)
    for family in named:
        role = roles[family]
        found[family] = (GRAY, "s") if role == "dense" else next(grays if role == "baseline" else colors)
    return found


def heading(points: Sequence[Point]) -> str:
    """Network, data and threat in words."""
    first = points[0].row.records[0]
    threat = report.threat(first) if comparison.attacked(points) else "not attacked"
    return f"{first.model} on {first.examples} images of {first.data}; {threat}"


def _figure(panels: int, width: float, title: str, height: float = 4.2) -> tuple[Any, Any]:
    import matplotlib.figure  # slow to import

    lines, across = -(-panels // ACROSS), min(panels, ACROSS)
    size = (width * across + 1.5, height * lines)
    figure = matplotlib.figure.Figure(figsize=size, dpi=120, layout="constrained")
    wide = int(13 * size[0])  # letters of this size
    figure.suptitle("\n".join(textwrap.fill(line, wide) for line in title.splitlines()), fontsize=9)
    return figure, figure.subplots(lines, across, sharey=True, squeeze=False).ravel()


def _finish(figure: Any, panels: Any, label: str, path: str | os.PathLike, *, legend: bool = True) -> bool:
    panels[0].set_ylabel(label)
    if legend:
        panels[-1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8)
    figure.savefig(path)
    return True
