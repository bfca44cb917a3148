"""`python -m experiments.sweep FILE [--jobs N | --here] [--dry-run] [--slurm ...] [--quick] [--config.KEY=VALUE ...]`.

Runs every run of a sweep file that has no line in the results yet, and only those: the same command goes on after
Ctrl-C, retries what failed, and may run beside itself. Changes with `--config.` hold for every run. Exit code 0: all
lines are there (or submitted); 1: some runs failed, each is listed with its error; 2: a wrong argument; 75: nothing
failed, but another process still measures some of the runs, each is listed; 130: interrupted.
"""

import argparse
import ast
import pathlib
import sys
from collections.abc import Generator, Sequence

from experiments import run as runner
from experiments.common import configs, results, sweeps
from experiments.common.sweeps import Outcome, Planned

PROGRAM = "python -m experiments.sweep"
QUICK_SECONDS = 10  # of a run with --quick, most of them to start and to compile


def main(arguments: Sequence[str]) -> int:
    """Run the command line; returns the exit code."""
    try:
        given, changes = parse(arguments)
        module = configs.load_module(given.file, ("runs", "SECONDS"))
        planned = sweeps.plan(list(module.runs()), changes, quick=given.quick)
        todo, lines = sweeps.split(planned)
        seconds = sweeps.estimate(todo, lines, min(module.SECONDS, QUICK_SECONDS) if given.quick else module.SECONDS)
        print(
            f"{len(planned)} runs: {len(planned) - len(todo)} finished, {len(todo)} to do; "
            f"{duration(seconds, given.jobs)}"
        )
        if given.dry_run:
            show(todo)
            return 0
        for folder in dict.fromkeys(one.config.values.out for one in planned):
            results.usable(pathlib.Path(folder))
        if given.slurm is not None:
            return submitted(todo, given)
        return measured(todo, sweeps.here(todo) if given.here else sweeps.locally(todo, given.jobs))
    except (ValueError, ModuleNotFoundError) as error:
        print(f"{PROGRAM}: {runner.said(error)}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{PROGRAM}: stopped, the lines that were written are kept: {runner.said(error)}", file=sys.stderr)
        return 1


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[tuple[str, str]]]:
    """The command line, and the changes of all configs.

    Raises:
      ValueError: what is wrong.
    """
    parser = argparse.ArgumentParser(prog=PROGRAM, description=__doc__, allow_abbrev=False)
    parser.add_argument("file", help="a sweep file, such as experiments/benchmark/sweep.py")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time (default: 1)")
    parser.add_argument(
        "--here", action="store_true", help="one after another in this process: for many short runs that share much"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the plan and an estimate of its time")
    parser.add_argument(
        "--slurm", nargs="*", metavar="KEY=VALUE", help="submit an array through submitit, with these parameters"
    )
    parser.add_argument("--quick", action="store_true", help="few images, epochs and steps in every run")
    given, others = parser.parse_known_args(arguments)
    if given.jobs < 1:
        raise ValueError(f"--jobs must be at least 1; got {given.jobs}")
    if given.here and given.jobs > 1:
        raise ValueError(f"--here runs one after another; got --jobs {given.jobs}")
    return given, configs.parse_changes(others)


def duration(seconds: float, jobs: int) -> str:
    """The estimate in words."""
    seconds /= jobs
    unit, scale = next((u, s) for u, s in (("hours", 3600), ("minutes", 60), ("seconds", 1)) if seconds >= s or s == 1)
    return f"about {seconds / scale:.3g} {unit} with {jobs} at a time"


def show(todo: Sequence[Planned]) -> None:
    """The plan."""
    for one in todo:
        print(f"  {one.name:50} python -m experiments.run {' '.join(one.arguments)}")


def measured(todo: Sequence[Planned], runs: Generator[Outcome]) -> int:
    """Run on this machine; gives the exit code."""
    ended: list[Outcome] = []
    try:
        for outcome in runs:
            ended.append(outcome)
            print(
                f"  {len(ended)}/{len(todo)}  {outcome.planned.name}{': ' + outcome.error if outcome.error else ''}",
                flush=True,
            )
    except KeyboardInterrupt:
        runs.close()
        left, _ = sweeps.split(todo)  # some may have ended after the last that was told
        print(
            f"interrupted: {len(todo) - len(left)} of {len(todo)} runs have their line; "
            "the same command goes on from there"
        )
        return 130
    failed = [outcome for outcome in ended if outcome.error and outcome.error != sweeps.BUSY]
    if failed:
        print(f"{len(failed)} of {len(todo)} runs failed; the same command tries them again:")
        for outcome in failed:
            print(f"  {outcome.planned.name}: {outcome.error}")
    # the lines are read again: what was busy then may be there by now
    left, _ = sweeps.split([outcome.planned for outcome in ended if outcome.error == sweeps.BUSY])
    if left:
        print(f"{len(left)} of {len(todo)} runs are left to other processes; the same command later tells of them:")
        for one in left:
            print(f"  {one.name}: {sweeps.BUSY}")
    return 1 if failed else runner.BUSY if left else 0


def submitted(todo: Sequence[Planned], given: argparse.Namespace) -> int:
    """Submit an array."""
    parameters = {}
    for text in given.slurm:
        name, separator, value = text.partition("=")
        if not separator:
            raise ValueError(f"--slurm takes KEY=VALUE, as timeout_min=60; got {text!r}")
        parameters[name] = ast.literal_eval(value) if value.isdecimal() else value
    if todo:
        folder = pathlib.Path(todo[0].config.values.out)
        ids = sweeps.on_slurm(todo, folder, given.jobs, parameters)
        print(f"submitted {len(ids)} runs: {', '.join(ids)}; the same command later tells what is left")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
