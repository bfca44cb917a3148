"""`python -m experiments.pruning`: see README.md here."""

import pathlib
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from experiments.pruning import one_shot, robust, tables
from experiments.pruning.options import PROGRAM, Options, parse
from experiments.pruning.subject import Subject, subjects
from spartax import measure


def main(arguments: Sequence[str]) -> int:
    """Measure every row that has no line yet; returns the exit code: 0, 2 for wrong arguments, 130 when interrupted."""
    options = parse(arguments)
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        networks = subjects(options)
    except (ValueError, OSError) as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 2
    for network in networks:
        lines = options.out / f"{'robust' if options.robust else 'one_shot'}_{network.name}.jsonl"
        try:
            _measure(network, options, lines, console)
        except KeyboardInterrupt:
            console.print(f"interrupted; the finished rows are in {lines}: the same command goes on from there")
            return 130
        finally:
            _report(lines, options, console)
    return 0


def _measure(network: Subject, options: Options, lines: pathlib.Path, console: Console) -> None:
    """Append a line for each row; it is on disk when it is printed."""
    study = robust.run if options.robust else one_shot.run
    done = {(record.method, record.seed) for record in _read(lines)}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(network.name)
        per_network = 1 if network.train_apply is None and not options.robust else 2
        for found in study(network, options, done):
            if isinstance(found, int):
                bar.update(task, total=per_network * found)
            elif isinstance(found, str):
                console.print(f"skipped  {found}", markup=False)
            elif (found.method, found.seed) not in done:
                measure.append(lines, found)
                attacked = f"  worst {found.worst:6.1%}" if found.robust else ""
                console.print(f"{found.method:58} seed {found.seed}  clean {found.clean:6.1%}{attacked}")
                bar.advance(task, found.role != "dense")


def _read(lines: pathlib.Path) -> list[measure.Record]:
    return measure.read(lines) if lines.exists() else []


def _report(lines: pathlib.Path, options: Options, console: Console) -> None:
    """Tables and picture, from the lines on disk alone."""
    records = _read(lines)
    if not any(record.options for record in records):
        return
    title = f"{records[0].model}: pruned {'under attack' if options.robust else 'in one shot'}"
    page = (measure.markdown if options.robust else tables.markdown)(records, title)
    lines.with_suffix(".md").write_text(page + f"\n![accuracy]({lines.stem}.png)\n")
    (measure.plot if options.robust else tables.plot)(records, lines.with_suffix(".png"), title)
    console.print(f"{lines}, {lines.stem}.md, {lines.stem}.png")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
