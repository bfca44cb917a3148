"""Pictures of a study: Pareto fronts, security curves, masking gaps, layer-wise sparsity, as PNG files."""

import os
from collections.abc import Sequence
from typing import Any

from spartax.measure import comparison, report
from spartax.measure.comparison import Point
from spartax.measure.plot import COLORS, GRAY, log_axis, short, style

ACROSS = 4  # panels beside each other


def fronts(points: Sequence[Point], path: str | os.PathLike, title: str = "") -> None:
    """Accuracy under attack (filled) and clean (faint) against bytes, multiply-adds and time; the fronts are black."""
    costs = {n: c for n, c in comparison.COSTS.items() if any(c(p) is not None for p in points)}
    figure, panels = _figure(len(costs), 5.0, title)
    chosen = styles(points)
    for axes, (name, cost) in zip(panels, costs.items()):
        for family, (color, marker) in chosen.items():
            own = comparison.spots([p for p in points if p.family == family], cost)
            x, y, spread = [s.cost for s in own], [s.worst for s in own], [s.spread for s in own]
            joined = (
                "none" if cost is comparison.COSTS[comparison.TIME] else "-"
            )  # times do not follow operating points
            look = {"marker": marker, "color": color, "markersize": 5, "capsize": 2, "linewidth": 1}
            axes.errorbar(x, y, spread, label=family, linestyle=joined, **look)
            axes.plot(x, [s.point.row.clean[0] for s in own], marker, color=color, alpha=0.25, linestyle="none")
        best = comparison.front(points, cost)
        axes.step([s.cost for s in best], [s.worst for s in best], "k-", where="post", alpha=0.6, zorder=1)
        for worst in [p.row.worst for p in points if p.role == "dense"]:
            if worst is not None:
                axes.axhline(worst[0], color=GRAY, linewidth=0.8, zorder=1)
        log_axis(axes, short if name == comparison.BYTES else "{:g}".format, (1.0, 2.0, 5.0))
        axes.set(xlabel=name, ylim=(0, 102))
        axes.grid(alpha=0.25)
    _finish(figure, panels, "accuracy (%)", path)


def security_curves(points: Sequence[Point], path: str | os.PathLike, title: str = "") -> None:
    """A panel for each family: accuracy against the radius of the attack, dense in gray; darker is larger on disk."""
    known = [p for p in points if len(p.curve) > 1]
    names = [
        f for f in dict.fromkeys(p.family for p in known) if not all(p.role == "dense" for p in known if p.family == f)
    ]
    figure, panels = _figure(max(1, len(names)), 3.2, title)
    for axes, family in zip(panels, names):
        own = sorted((p for p in known if p.family == family), key=lambda p: p.row.size)
        for number, point in enumerate(own, 1):
            x, y = list(point.curve), [v[0] for v in point.curve.values()]
            axes.plot(x, y, "o-", color=COLORS[0], alpha=number / len(own), markersize=3, label=point.row.name)
        for point in (p for p in known if p.role == "dense"):
            axes.plot(
                list(point.curve), [v[0] for v in point.curve.values()], "s--", color=GRAY, markersize=3, label="dense"
            )
        axes.set(title=family, xlabel="eps", ylim=(0, 102))
        axes.legend(fontsize=6, frameon=False)
        axes.grid(alpha=0.25)
    _finish(figure, panels, "accuracy under attack (%)", path, legend=False)


def masking(points: Sequence[Point], path: str | os.PathLike, title: str = "") -> None:
    """Bars: by how much the gradients of the network itself overstate its robustness."""
    gaps = {p.row.name: p.masking for p in points if p.masking is not None}
    figure, (axes,) = _figure(1, 7.0, title, height=1.5 + 0.22 * len(gaps))
    means, spreads = ([gap[i] for gap in gaps.values()] for i in (0, 1))
    below = [min(mean, spread) for mean, spread in zip(means, spreads)]  # a gap is never negative
    axes.barh(list(gaps), means, xerr=(below, spreads), color=COLORS[0], alpha=0.7)
    axes.set(xlabel="robust accuracy claimed by the first route alone, minus the worst (points)")
    axes.invert_yaxis()
    axes.tick_params(axis="y", labelsize=7)
    figure.savefig(path)


def layer_sparsity(points: Sequence[Point], path: str | os.PathLike, title: str = "") -> None:
    """A row for each operating point, a column for each weight: the fraction of zeros."""
    known = [p for p in points if any(p.sparsity.values())]
    paths = list(dict.fromkeys(path for p in known for path in p.sparsity))
    figure, (axes,) = _figure(1, 4.0 + 0.5 * len(paths), title, height=1.8 + 0.22 * max(1, len(known)))
    values = [[100 * p.sparsity.get(path, 0.0) for path in paths] for p in known]
    if values:
        shown = axes.imshow(values, aspect="auto", vmin=0, vmax=100, cmap="viridis")
        figure.colorbar(shown, label="zeros (%)")
    axes.set_xticks(range(len(paths)), paths, rotation=60, ha="right", fontsize=7)
    axes.set_yticks(range(len(known)), [p.row.name for p in known], fontsize=7)
    figure.savefig(path)


def styles(points: Sequence[Point]) -> dict[str, tuple[str, str]]:
    """Family -> color and marker: dense and random are gray."""
    found, number = {}, 0
    for point in points:
        if point.family in found:
            continue
        if point.role == "dense" or point.family.startswith("random"):
            found[point.family] = (GRAY, "s" if point.role == "dense" else "X")
        else:
            found[point.family] = style(number)
            number += 1
    return found


def heading(points: Sequence[Point]) -> str:
    """Network, data and threat in words."""
    first = points[0].row.records[0]
    return f"{first.model} on {first.examples} images of {first.data}; {report.threat(first)}"


def _figure(panels: int, width: float, title: str, height: float = 4.2) -> tuple[Any, Any]:
    import matplotlib.figure  # slow to import

    lines, across = -(-panels // ACROSS), min(panels, ACROSS)
    size = (width * across + 1.5, height * lines)
    figure = matplotlib.figure.Figure(figsize=size, dpi=120, layout="constrained")
    figure.suptitle(title, fontsize=9)
    return figure, figure.subplots(lines, across, sharey=True, squeeze=False).ravel()


def _finish(figure: Any, panels: Any, label: str, path: str | os.PathLike, *, legend: bool = True) -> None:
    panels[0].set_ylabel(label)
    if legend:
        panels[-1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8)
    figure.savefig(path)
