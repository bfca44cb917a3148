"""`python -m experiments.bench [NAME ...] [--quick]`: run benchmarks and print their tables.

Every ratio compares two functions timed in turns in the same run; medians with quartiles. Run it on an otherwise idle
machine: a loaded one is visible in the spread.
"""

import argparse
import importlib
import json
import pathlib
import platform
import sys

import jax
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from experiments import bench
from experiments.bench import kernels
from spartax import catalog

HELPERS = {"row"}


def known() -> list[str]:
    return [n for n in catalog.names(bench) if n not in HELPERS]


def table(title: str, rows: list) -> Table:
    shown = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    figures = list(rows[0].figures or {}) if rows else []
    for column in ("what", "median ms", "quartiles", "baseline", "median ms", "quartiles", "faster", *figures, "note"):
        text = column in ("what", "baseline", "note")
        shown.add_column(column, justify="left" if text else "right", no_wrap=not text)
    for row in rows:
        ms = [[f"{1e3 * v:.3g}" for v in (t.median, t.low, t.high)] for t in (row.time, row.base)]
        cells = [[m, f"{low}-{high}"] for m, low, high in ms]
        more = [f"{row.figures[name]:.3g}" for name in figures]
        shown.add_row(row.name, *cells[0], row.baseline, *cells[1], f"{row.speedup:.2f}x", *more, row.note)
    return shown


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one or more of: {', '.join(known())} (default: all)")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes, to see that it runs; the numbers mean nothing"
    )
    parser.add_argument("--out", type=pathlib.Path, help="append one JSON line per row to this file")
    chosen = parser.add_argument_group("of `kernels` alone")
    chosen.add_argument("--cases", nargs="+", metavar="TEXT", help="rows whose name contains one of these")
    chosen.add_argument("--size", type=int, help="side of the matrix")
    chosen.add_argument("--batch", type=int, nargs="+", help="rows of the activation")
    chosen.add_argument("--passes", nargs="+", choices=list(kernels.PASSES))
    options = parser.parse_args()
    for name in options.names:
        if name not in known():
            parser.error(f"no benchmark {name!r}; there are {', '.join(known())}")
    wanted = {k: v for k in ("cases", "size", "batch", "passes") if (v := getattr(options, k)) is not None}
    if wanted and options.names != ["kernels"]:
        parser.error(f"--{' and --'.join(wanted)} choose rows of the benchmark `kernels`: name it alone")
    console = Console(width=None if sys.stdout.isatty() else 150)
    console.print(f"jax {jax.__version__} on {jax.devices()[0].device_kind}, {platform.processor() or 'cpu'}")
    for name in options.names or known():
        module = importlib.import_module(f"experiments.bench.{name}")
        rows = module.rows(options.quick, **wanted)
        console.print(table((module.__doc__ or name).splitlines()[0], rows))
        if options.out:
            with options.out.open("a") as file:
                file.writelines(json.dumps({"bench": name, **row._asdict()}) + "\n" for row in rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
