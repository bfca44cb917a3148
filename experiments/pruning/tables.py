"""Markdown and the picture of the one-shot study, from the lines alone."""

import os
from collections.abc import Sequence

from experiments.pruning.one_shot import KEPT, NEW
from spartax import measure
from spartax.measure import report

Accuracies = dict[tuple[str, str, float, str], tuple[float, float]]  # criterion, allocation, sparsity, statistics


def accuracies(records: Sequence[measure.Record]) -> Accuracies:
    """Mean accuracy in percent and its spread, seeds put together."""
    pruned = [record for record in records if record.options]
    keys = ("criterion", "allocation", "sparsity", "statistics")
    return {tuple(row.records[0].options[k] for k in keys): row.clean for row in report.rows(pruned)}


def markdown(records: Sequence[measure.Record], title: str) -> str:
    """One table for each sparsity and kind of batch statistics: criteria down, allocations across."""
    found = accuracies(records)
    dense = [row.clean for row in report.rows([r for r in records if r.role == "dense"])]
    lines = [f"# {title}", "", f"Clean accuracy (%) on {records[0].examples} images of {records[0].data}, one shot."]
    lines += [f"Dense: {dense[0][0]:.1f} ±{dense[0][1]:.1f}." if dense else "Dense: not measured."]
    lines += ["± is the standard deviation over seeds, or the 95 % interval of one."]
    for sparsity in sorted({key[2] for key in found}):
        for statistics in (KEPT, NEW):
            here = {key[:2]: v for key, v in found.items() if key[2:] == (sparsity, statistics)}
            lines += ["", f"## {sparsity:.0%}, batch statistics {statistics}", "", *_table(here)] if here else []
    return "\n".join([*lines, ""])


def _table(found: dict[tuple[str, str], tuple[float, float]]) -> list[str]:
    criteria, allocations = (list(dict.fromkeys(key[i] for key in found)) for i in (0, 1))
    rows = [["criterion", *allocations], ["---", *["--:"] * len(allocations)]]
    for criterion in criteria:
        cells = [found.get((criterion, allocation)) for allocation in allocations]
        rows.append([criterion, *(f"{c[0]:.1f} ±{c[1]:.1f}" if c else "" for c in cells)])
    return [f"| {' | '.join(row)} |" for row in rows]


def plot(records: Sequence[measure.Record], path: str | os.PathLike, title: str) -> None:
    """A panel for each allocation: accuracy against sparsity, a line for each criterion, best statistics there are."""
    import matplotlib.figure  # slow to import

    found = accuracies(records)
    statistics = NEW if any(key[3] == NEW for key in found) else KEPT
    allocations = list(dict.fromkeys(key[1] for key in found))
    figure = matplotlib.figure.Figure(figsize=(3.2 * len(allocations) + 2, 4.2), dpi=150, layout="constrained")
    panels = figure.subplots(1, len(allocations), sharey=True, squeeze=False)[0]
    for axes, allocation in zip(panels, allocations):
        for number, criterion in enumerate(dict.fromkeys(key[0] for key in found)):
            points = sorted(
                (k[2], v) for k, v in found.items() if k[:2] == (criterion, allocation) and k[3] == statistics
            )
            x, y, spread = [100 * s for s, _ in points], [v[0] for _, v in points], [v[1] for _, v in points]
            style = {"linestyle": "--", "color": "#555555"} if criterion == "random" else {"color": f"C{number % 10}"}
            axes.errorbar(x, y, spread, marker="osD^vP"[number % 6], markersize=4, label=criterion, **style)
        axes.set(title=allocation, xlabel="sparsity (%)", ylim=(0, 100))
        axes.grid(alpha=0.25)
    panels[0].set_ylabel("clean accuracy (%)")
    panels[-1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8)
    figure.suptitle(f"{title}, batch statistics {statistics}", fontsize=10)
    figure.savefig(path)
