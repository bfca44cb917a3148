"""The whole run: subject, rows, report."""

import pathlib
import shutil
import sys
import time
from collections.abc import Sequence

from rich.console import Console

from experiments.quickstart import compressions, measuring, subject
from experiments.quickstart.options import PROGRAM, Options, parse
from spartax import measure

ROWS, REPORT, PICTURE = "results.jsonl", "report.md", "accuracy_vs_bytes.png"
DENSE = compressions.Compression("dense", {}, lambda apply_fn, params, batch, key: params, "dense")


def main(arguments: Sequence[str]) -> int:
    """Run the command line; returns the exit code: 0; 1: a full disk; 2: wrong arguments; 130: interrupted."""
    options, start = parse(arguments), time.perf_counter()
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    try:
        _replaceable(options.out)
        ready = subject.published(options, options.weights) if options.weights else None
        working = _working_folder(options.out)
    except (ValueError, OSError) as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 2
    try:
        _rows(ready or subject.trained(options), options, working, console)
    except KeyboardInterrupt:
        return _interrupted(working, console)
    except OSError as error:
        print(f"{PROGRAM}: {' '.join(str(error).split())}; finished rows are in {working}/", file=sys.stderr)
        return 1
    _report(working, console)
    _replace(options.out, working)
    console.print(f"{options.out}/: {ROWS}, {REPORT}, {PICTURE}, checkpoints/  ({time.perf_counter() - start:.0f} s)")
    return 0


def _replaceable(out: pathlib.Path) -> None:
    """Refuse a folder that holds something else than results."""
    if out.exists() and not (out.is_dir() and (any(out.glob(ROWS)) or not any(out.iterdir()))):
        raise ValueError(f"--out {out} holds something else than results of this program; choose another folder")


def _working_folder(out: pathlib.Path) -> pathlib.Path:
    """A new folder beside `out`, which it replaces at the end; those of stopped and of running runs are left alone."""
    working, number = out.with_name(f"{out.name}.partial"), 1
    while True:
        try:
            working.mkdir(parents=True)
            return working
        except FileExistsError:
            number += 1
            working = out.with_name(f"{out.name}.partial-{number}")


def _rows(network: subject.Subject, options: Options, working: pathlib.Path, console: Console) -> None:
    """Measure the dense network and every compression; each row is on disk when it is printed."""
    bench = measuring.bench(network, options)
    eps = f"eps {network.eps:.3g} ({network.eps * network.levels:.3g}/{network.levels})"
    attacks = ", ".join(bench.attacks)
    console.print(f"{network.name} on {len(network.test.y)} images of {network.test.name}; linf {eps}, {attacks}")
    for compression in (DENSE, *compressions.all_compressions()):
        record = measuring.row(bench, compression, working / "checkpoints")
        measure.append(working / ROWS, record)
        console.print(
            f"  {record.method:26}{record.bytes_disk:>10,} bytes   clean {record.clean:6.1%}   "
            f"attacked {record.worst:6.1%}   ({record.seconds:.1f} s)"
        )


def _report(working: pathlib.Path, console: Console) -> None:
    """Table, Markdown and picture, from the lines on disk alone."""
    records = measure.read(working / ROWS)
    title = f"{records[0].model}: compressed in one shot, no fine-tuning"
    console.print(measure.table(records, title))
    page = measure.markdown(records, title) + f"\n![robust accuracy against bytes]({PICTURE})\n"
    (working / REPORT).write_text(page)
    measure.plot(records, working / PICTURE, title)


def _interrupted(working: pathlib.Path, console: Console) -> int:
    done = len(measure.read(working / ROWS)) if (working / ROWS).exists() else 0
    if done:
        _report(working, console)
        console.print(f"interrupted: {done} finished rows, their report and checkpoints are in {working}/")
    else:
        shutil.rmtree(working, ignore_errors=True)
        console.print("interrupted before the first row was finished; nothing was written")
    return 130


def _replace(out: pathlib.Path, working: pathlib.Path) -> None:
    """Put the finished folder in the place of the previous one."""
    old = working.with_name(working.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    working.rename(out)
    shutil.rmtree(old, ignore_errors=True)
