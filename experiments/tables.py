"""`python -m experiments.tables FOLDER`: a page for every network of a study, from the lines alone.

Writes `MODEL.md` and `MODEL.png` for every network with lines in a `*.jsonl` file in the folder or below: who wins
within a share of the bytes and multiply-adds, every family at its operating points, and accuracy against cost. Exit
code 0; 2: there is no line, or the folder takes no files.
"""

import pathlib
import sys
from collections.abc import Sequence

from spartax.measure import comparison, figures, folder, report
from spartax.measure.comparison import Point
from spartax.measure.record import Record


def main(arguments: Sequence[str]) -> int:
    """Write the pages of a folder; returns the exit code."""
    try:
        path, groups = folder.of_command("python -m experiments.tables", arguments)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        written(path, groups)
    except OSError as error:
        print(f"cannot write into {path}: {error}", file=sys.stderr)
        return 2
    return 0


def written(path: pathlib.Path, groups: Sequence[Sequence[Record]]) -> None:
    """Write the page and the picture of every group."""
    for number, group in enumerate(groups):
        again = sum(other[0].model == group[0].model for other in groups[:number])
        place = path / f"{group[0].model}{f'_{again + 1}' if again else ''}"
        points = comparison.points(group)
        figures.fronts(points, f"{place}.png", figures.heading(points))
        pathlib.Path(f"{place}.md").write_text(page(points, f"{place.name}.png"))
        print(f"{place}.md {place}.png")


def page(points: Sequence[Point], picture: str) -> str:
    """Statements, points and the picture of one network."""
    seeds = sorted({record.seed for point in points for record in point.row.records})
    judged = "the worst of all attacks, (clean)" if comparison.attacked(points) else "clean"
    lines = [
        f"# {figures.heading(points)}",
        "",
        f"Accuracy in %, {judged}, at kB on disk; seeds {', '.join(map(str, seeds))}. ± is half of the 95 % interval "
        "of images and, where there are several, the seeds.",
        "",
        *(f"* {line}" for line in comparison.verdicts(points)),
        "",
        *table(points),
        "",
        f"![accuracy against cost]({picture})",
        "",
    ]
    return "\n".join(lines)


def table(points: Sequence[Point]) -> list[str]:
    """Families down, their operating points across, the largest first; the dense network leads."""
    families: dict[str, list[Point]] = {}
    for point in sorted(points, key=lambda point: point.role != "dense"):
        families.setdefault(point.family, []).append(point)
    seeds = max(len(point.row.records) for point in points)
    rows = [[name, *cells(name, sorted(own, key=lambda p: -p.row.size), seeds)] for name, own in families.items()]
    most = max(map(len, rows))
    head = [["", *[""] * (most - 1)], ["---", *["--:"] * (most - 1)]]
    full = [row + [""] * (most - len(row)) for row in rows]
    return [f"| {' | '.join(map(report.escaped, row))} |" for row in (*head, *full)]


def cells(family: str, points: Sequence[Point], seeds: int) -> list[str]:
    """`90%: 50.2 ±3.1 (60.1) at 20`, with the number of seeds of a point where others have more.

    The operating point is what the name of a point does not share with its family and all others in it.
    """
    names = [point.row.name.split(", ") for point in points]
    shared = {*family.split(", "), *(set(names[0]).intersection(*names) if len(names) > 1 else ())}
    found = []
    for point, name in zip(points, names):
        clean, worst, own = point.row.clean, point.row.worst, len(point.row.records)
        value, spread = clean if worst is None else worst
        place = ", ".join(part for part in name if part not in shared)
        more = "" if worst is None else f" ({clean[0]:.1f})"
        few = "" if own == seeds else f", seeds: {own}"
        found.append(
            f"{place}{': ' if place else ''}{value:.1f} ±{spread:.1f}{more} at {point.row.size / 1000:.0f}{few}"
        )
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
