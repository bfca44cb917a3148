"""`python -m experiments.pruning.tables FOLDER`: tables and pictures of this study, from the lines alone.

Writes `one_shot_MODEL.md` and `.png` for every network with one-shot lines in a `*.jsonl` file in the folder or below,
`robust_MODEL.md` and `.png` for every one that was attacked. Lines of other images, another threat or another budget
(`SEEN`, `TRAINED`) have a part of the page and a picture to themselves. Exit code 0; 2: there is no line.
"""

import functools
import math
import os
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from experiments.pruning.options import KEPT, NEW
from spartax import measure
from spartax.measure import comparison, figures, folder, report
from spartax.measure.plot import COLORS, GRAY, MARKERS

ACROSS = 4  # panels beside each other
SEEN = ("calibration", "curve_images")  # options that say what was spent on a cell, and on a network under attack:
TRAINED = ("steps", "calibration", "score_epochs", "score_rate", "tune_epochs", "tune_rate", "training")


class Cell(NamedTuple):
    """What rows are told apart by."""

    criterion: str
    allocation: str
    sparsity: float
    statistics: str


Accuracy = tuple[float, float]  # in percent, and its spread
Found = Mapping[Cell, Accuracy]
Part = tuple[str, Callable[[pathlib.Path], object]]  # of a page: its text, and what draws its picture


def main(arguments: Sequence[str]) -> int:
    """Write the tables of a folder; returns the exit code."""
    try:
        path, groups = folder.of_command("python -m experiments.pruning.tables", arguments)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    pages: dict[str, list[Part]] = {}
    for group in groups:
        for name, part in parts(group):
            pages.setdefault(f"{name}_{group[0].model}", []).append(part)
    for name, own in pages.items():
        written(path / name, own)
    return 0


def parts(group: Sequence[measure.Record]) -> Iterator[tuple[str, Part]]:
    """Those of one network, threat and set of images, with the page they belong to: a part for every budget."""
    plain = [record for record in group if not record.robust and (record.role == "dense" or is_cell(record))]
    if cells(plain):
        for own in by_budget(plain, SEEN).values():
            yield "one_shot", (markdown(own), functools.partial(plot, own))
    attacked = [record for record in group if record.robust]
    for spent, own in by_budget(attacked, TRAINED).items():
        title = f"{own[0].model}: pruned, under attack{f' ({spent})' if spent else ''}"
        draw = functools.partial(figures.fronts, comparison.points(own), title=own[0].model)
        yield "robust", (measure.markdown(own, title), draw)


def by_budget(records: Sequence[measure.Record], names: Sequence[str]) -> dict[str, list[measure.Record]]:
    """The records apart by what was spent on them, the dense network with each."""
    spent = dict.fromkeys(budget(record, names) for record in records if record.role != "dense")
    alike = lambda record, text: record.role == "dense" or budget(record, names) == text  # noqa: E731
    found = {text: [record for record in records if alike(record, text)] for text in spent or ("",)}
    return found if records else {}


def budget(record: measure.Record, names: Sequence[str]) -> str:
    """What its options of these names say was spent: `tune epochs 2, training 10,000`."""
    known = [name for name in names if name in record.options]
    return ", ".join(f"{name.replace('_', ' ')} {record.options[name]:,}" for name in known)


def written(place: pathlib.Path, parts: Sequence[Part]) -> None:
    """Write a page with its pictures."""
    texts, pictures = [], []
    for number, (text, draw) in enumerate(parts, 1):
        pictures.append(pathlib.Path(f"{place}{'' if number == 1 else f'_{number}'}.png"))
        draw(pictures[-1])
        texts.append(f"{text}\n![accuracy]({pictures[-1].name})\n")
    page = pathlib.Path(f"{place}.md")
    page.write_text("\n".join(texts))
    print(page, *pictures)


def is_cell(record: measure.Record) -> bool:
    """Whether it is of the one-shot study."""
    return set(Cell._fields) <= set(record.options)


def cells(records: Sequence[measure.Record]) -> Found:
    """Mean accuracy and its spread, seeds put together."""
    own = [record for record in records if is_cell(record)]
    return {Cell(*(row.records[0].options[k] for k in Cell._fields)): row.clean for row in report.rows(own)}


def dense(records: Sequence[measure.Record]) -> Accuracy | None:
    """That of the network before pruning, where it was measured."""
    return next((row.clean for row in report.rows([r for r in records if r.role == "dense"])), None)


def markdown(records: Sequence[measure.Record]) -> str:
    """The best allocation of every criterion, then everything."""
    found, whole, first = cells(records), dense(records), records[0]
    spent = next(budget(record, SEEN) for record in records if is_cell(record))
    lines = [
        f"# {first.model}: pruned in one shot",
        "",
        f"Clean accuracy (%) on {first.examples} images of {first.data}; no attack, no fine-tuning. "
        f"Dense: {_shown(whole) if whole else 'not measured'}. ± is half of the 95 % interval of images and, "
        "where there are several, the seeds. Bold: the largest number; *italic*: less, but within the interval of the "
        "difference." + (f" Spent on each: {spent}." if spent else ""),
    ]
    lines += ["", "## Who wins where", ""]
    for sparsity in sorted({cell.sparsity for cell in found}):
        for statistics in (NEW, KEPT):
            here = {c: v for c, v in found.items() if (c.sparsity, c.statistics) == (sparsity, statistics)}
            lines += [f"* {sparsity:.0%}, {statistics} statistics: {_winners(here)}"] if here else []
    for statistics in (NEW, KEPT):
        lines += ["", f"## Best allocation of each criterion, {statistics} batch statistics", ""]
        lines += _summary({cell: v for cell, v in found.items() if cell.statistics == statistics})
    for sparsity in sorted({cell.sparsity for cell in found}):
        for statistics in (NEW, KEPT):
            here = {c: v for c, v in found.items() if (c.sparsity, c.statistics) == (sparsity, statistics)}
            lines += ["", f"## {sparsity:.0%}, {statistics} batch statistics", "", *_grid(here)]
    return "\n".join([*lines, ""])


def _winners(found: Found) -> str:
    """The best pair, the pairs it does not lead, and the best of those it does."""
    ranked = sorted(found.items(), key=lambda item: -item[1][0])
    name = lambda cell, value: f"{cell.criterion} with {cell.allocation} ({_shown(value)})"  # noqa: E731
    first, *others = ranked
    level = [item for item in others if _level(first[1], item[1])]
    behind = [item for item in others if not _level(first[1], item[1])]
    told = f", not told apart from {', '.join(name(*item) for item in level)}" if level else ""
    return f"{name(*first)}{told}" + (f"; ahead of {name(*behind[0])}." if behind else ".")


def _level(best: Accuracy, other: Accuracy) -> bool:
    """Whether the difference is within its interval."""
    return best[0] - other[0] <= math.hypot(best[1], other[1])


def _summary(found: Found) -> list[str]:
    """Criteria down, sparsities across."""
    sparsities = sorted({cell.sparsity for cell in found})
    rows = {}
    for criterion in _names(found, 0):
        for sparsity in sparsities:
            own = {c.allocation: v for c, v in found.items() if (c.criterion, c.sparsity) == (criterion, sparsity)}
            best = max(own, key=lambda allocation: own[allocation][0], default=None)
            rows[criterion, sparsity] = (own[best], f" {best}") if best else None
    columns = {sparsity: [rows[c, sparsity] for c in _names(found, 0)] for sparsity in sparsities}
    marked = {sparsity: _marked(column) for sparsity, column in columns.items()}
    header = ["criterion", *(f"{sparsity:.0%}" for sparsity in sparsities)]
    return _table(header, [[c, *(marked[s][i] for s in sparsities)] for i, c in enumerate(_names(found, 0))])


def _grid(found: Found) -> list[str]:
    """Criteria down, allocations across."""
    criteria, allocations = _names(found, 0), _names(found, 1)
    known = {cell[:2]: (value, "") for cell, value in found.items()}
    flat = iter(_marked([known.get((c, a)) for c in criteria for a in allocations]))
    return _table(["criterion", *allocations], [[c, *(next(flat) for _ in allocations)] for c in criteria])


def _names(found: Found, field: int) -> list[str]:
    return list(dict.fromkeys(str(cell[field]) for cell in found))


def _marked(values: Sequence[tuple[Accuracy, str] | None]) -> list[str]:
    """The numbers as text with what stands behind each, the largest bold, those it does not lead italic."""
    top = max((value[0] for value in values if value), default=(0.0, 0.0))
    texts = []
    for value in values:
        if value is None:
            texts.append("")
            continue
        accuracy, behind = value
        mark = "**" if accuracy[0] == top[0] else "*" if _level(top, accuracy) else ""
        texts.append(f"{mark}{_shown(accuracy)}{mark}{behind}")
    return texts


def _shown(accuracy: Accuracy) -> str:
    return f"{accuracy[0]:.1f} ±{accuracy[1]:.1f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---", *["--:"] * (len(header) - 1)]
    return [f"| {' | '.join(row)} |" for row in (header, rule, *rows)]


def plot(records: Sequence[measure.Record], path: str | os.PathLike) -> None:
    """A panel for each criterion, a color for each allocation: re-estimated statistics solid, trained ones dotted."""
    import matplotlib.figure  # slow to import

    found, whole = cells(records), dense(records)
    criteria, allocations = _names(found, 0), _names(found, 1)
    lines = -(-len(criteria) // ACROSS)
    figure = matplotlib.figure.Figure(figsize=(3.2 * ACROSS, 2.8 * lines + 1), dpi=130, layout="constrained")
    panels = figure.subplots(lines, ACROSS, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, criterion in zip(panels, criteria):
        if whole:
            axes.axhline(whole[0], color=GRAY, linewidth=1, linestyle="--", label="dense")
        for number, allocation in enumerate(allocations):
            for statistics in (NEW, KEPT):
                own = sorted(
                    (c.sparsity, v) for c, v in found.items() if c[:2] + c[3:] == (criterion, allocation, statistics)
                )
                x, y, spread = [100 * s for s, _ in own], [v[0] for _, v in own], [v[1] for _, v in own]
                look = {"color": COLORS[number], "marker": MARKERS[number], "markersize": 4}
                if statistics == NEW:
                    axes.errorbar(x, y, spread, linewidth=1.4, label=allocation, **look)
                else:
                    axes.plot(x, y, linestyle=":", linewidth=1, alpha=0.55, **look)
        axes.set_title(criterion, fontsize=9)
        axes.set(ylim=(0, 100), xlabel="sparsity (%)")
        axes.label_outer()
        axes.grid(alpha=0.25)
    for axes in panels[len(criteria) :]:
        axes.set_axis_off()
    panels[0].set_ylabel("clean accuracy (%)")
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=7, frameon=False, fontsize=8
    )
    first = records[0]
    figure.suptitle(
        f"{first.model}, one shot, {first.examples} images of {first.data}\n"
        "solid: batch statistics re-estimated (bars: 95 %); dotted: as trained",
        fontsize=9,
    )
    figure.savefig(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
