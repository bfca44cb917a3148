"""A grid of runs, run some at a time here or as an array of a cluster."""

import gc
import itertools
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import IO, Any, NamedTuple

import jax

from experiments import run as runner
from experiments.common import configs, results
from experiments.common.configs import Config
from spartax import measure

ROOT = pathlib.Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-m", "experiments.run")
BUSY = "being measured by another process"
MOST_MAPS = 30_000  # before compiled programs are given back


class Run(NamedTuple):
    """A config file and what is changed in it: names and values as text."""

    file: str
    changes: tuple[tuple[str, str], ...]


class Planned(NamedTuple):
    """A run with its config and the arguments that start it."""

    config: Config
    arguments: tuple[str, ...]

    @property
    def name(self) -> str:
        """As printed."""
        return f"{self.config.label}, seed {self.config.values.seed}"


class Outcome(NamedTuple):
    """How a run ended: exit code 0 and `error` empty, or what was wrong in its last line."""

    planned: Planned
    code: int
    error: str


def grid(file: str | os.PathLike, **values: Sequence[Any]) -> Iterator[Run]:
    """A run for every combination of these values."""
    for chosen in itertools.product(*values.values()):
        yield Run(str(file), tuple((name, str(value)) for name, value in zip(values, chosen)))


def plan(runs: Sequence[Run], changes: Sequence[tuple[str, str]], *, quick: bool) -> list[Planned]:
    """Every run with the changes of the command line, which win, checked before anything starts.

    Runs that are the same are one: a change of the command line may join several.

    Raises:
      ValueError: a config that cannot be read, an unknown name, a wrong value, or two files whose runs could not be
        told apart by their lines.
    """
    found: dict[tuple[str, str], Planned] = {}
    for file, own in runs:
        config = configs.load(file, (*own, *changes), quick=quick)
        texts = (f"--config.{name}={text}" for name, text in dict((*own, *changes)).items())
        arguments = (f"--config={file}", *texts, *(["--quick"] if quick else []))
        first = found.setdefault((config.values.out, config.identity), Planned(config, arguments)).config
        if first.file != file:
            raise ValueError(f"{first.file} and {file} both have a run {config.label!r} with the same options")
    return list(found.values())


def split(planned: Sequence[Planned]) -> tuple[list[Planned], dict[str, measure.Record]]:
    """The runs that have no line yet, and the lines there are."""
    folders = dict.fromkeys(one.config.values.out for one in planned)
    found = {folder: results.finished(pathlib.Path(folder)) for folder in folders}
    todo = [one for one in planned if one.config.identity not in found[one.config.values.out]]
    return todo, {key: r for lines in found.values() for key, r in lines.items()}


def estimate(todo: Sequence[Planned], lines: Mapping[str, measure.Record], otherwise: float) -> float:
    """Seconds of all runs in turn: the median of finished runs of the same method, of all runs, or `otherwise`."""
    times: dict[str, list[float]] = {}
    for record in lines.values():
        times.setdefault(record.options.get("method", record.method), []).append(record.seconds)
    usual = statistics.median(itertools.chain(*times.values())) if times else otherwise
    medians = {method: statistics.median(values) for method, values in times.items()}
    return sum(medians.get(one.config.values.method, usual) for one in todo)


def locally(todo: Sequence[Planned], jobs: int) -> Generator[Outcome]:
    """Run `jobs` at a time, each in its own process, and give each as it ends.

    Leaving early, as on Ctrl-C, interrupts those that run; lines are written whole or not at all.
    """
    waiting, running = iter(todo), {}
    try:
        while True:
            while len(running) < jobs and (one := next(waiting, None)) is not None:
                running[_start(one)] = one
            if not running:
                return
            ended = [process for process in running if process.process.poll() is not None]
            for process in ended:
                yield _outcome(process, running.pop(process))
            if not ended:
                time.sleep(0.05)
    finally:
        for process in running:
            process.process.send_signal(signal.SIGINT)
        for process in running:
            process.process.wait()
            process.errors.close()


def here(todo: Sequence[Planned]) -> Generator[Outcome]:
    """Run one after another in this process, which loads and compiles once what they share."""
    for one in todo:
        if maps() > MOST_MAPS:
            jax.clear_caches()
            gc.collect()
        try:
            code = runner.run(one.config)
        except Exception as error:  # whatever it is, the other runs go on
            yield Outcome(one, 1, " ".join(f"{type(error).__name__}: {error}".split()))
        else:
            yield Outcome(one, code, BUSY if code == runner.BUSY else "")


def maps() -> int:
    """Parts of memory that this process holds; every compiled program adds some, and at 65,530 Linux gives no more."""
    try:
        return pathlib.Path("/proc/self/maps").read_bytes().count(b"\n")
    except OSError:  # another system
        return 0


class _Process(NamedTuple):
    process: subprocess.Popen
    errors: IO[bytes]

    def __hash__(self) -> int:
        return id(self)


def _start(one: Planned) -> _Process:
    # a file, because a pipe that nobody reads would stop the run; _outcome closes it
    errors = tempfile.TemporaryFile()  # noqa: SIM115
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": paths}
    call = (*COMMAND, *one.arguments)
    return _Process(subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=errors, env=environment), errors)


def _outcome(process: _Process, one: Planned) -> Outcome:
    process.errors.seek(0)
    lines = process.errors.read().decode(errors="replace").strip().splitlines()
    process.errors.close()
    code = process.process.returncode
    return Outcome(one, code, _why(code, lines))


def _why(code: int, lines: Sequence[str]) -> str:
    if code == 0:
        return ""
    if code == runner.BUSY:
        return BUSY
    if code < 0:  # what it wrote last are no last words
        return f"killed by signal {-code}"
    return lines[-1] if lines else f"exit code {code}"


def on_slurm(todo: Sequence[Planned], folder: pathlib.Path, jobs: int, parameters: Mapping[str, Any]) -> list[str]:
    """Submit an array of runs, at most `jobs` at a time; gives the ids of its jobs.

    Args:
      todo: the runs.
      folder: of the logs that submitit keeps.
      jobs: how many run at once.
      parameters: of `submitit.AutoExecutor.update_parameters`: timeout_min, slurm_partition, gpus_per_node, ...

    Raises:
      ValueError: submitit is not installed, or does not know a parameter.
    """
    try:
        import submitit  # pyrefly: ignore
    except ImportError as error:
        raise ValueError("--slurm needs submitit, which is not installed: pip install -e '.[slurm]'") from error
    executor = submitit.AutoExecutor(folder=folder / "slurm", cluster="slurm")
    try:
        executor.update_parameters(slurm_array_parallelism=jobs, **parameters)
    except (NameError, TypeError, ValueError) as error:  # submitit names what it does not know by a NameError
        raise ValueError(f"--slurm: {error}") from error
    return [str(job.job_id) for job in executor.map_array(in_an_array, [one.arguments for one in todo])]


def in_an_array(arguments: Sequence[str], main: Callable[[Sequence[str]], int] = runner.main) -> None:
    """One task of an array; one that fails is shown as failed."""
    code = main(arguments)
    if code not in (0, runner.BUSY):
        raise RuntimeError(f"exit code {code}: {' '.join(arguments)}")
