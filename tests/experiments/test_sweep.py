"""Sweeps: what is planned, skipped, run at a time, failed, retried, interrupted, submitted."""

import json
import os
import pathlib
import sys
import threading
import time
import types

import pytest

from experiments import run, sweep
from experiments.common import configs, sweeps
from spartax import measure

ROOT = pathlib.Path(__file__).resolve().parents[2]
STUDY = ROOT / "experiments" / "benchmark"
SWEEP = """
from experiments.common.sweeps import grid
SECONDS = 10
def runs():
    yield from grid("{study}/dense.py", seed=(0,))
    yield from grid("{study}/magnitude.py", allocation=("pooled",), sparsity=(0.5, 0.7), seed=(0, 1))
"""
# stands in for `python -m experiments.run`: fast, and does what a file beside it says
FAKE = """
import json, pathlib, sys, time
given = dict(a.removeprefix("--config.").split("=", 1) for a in sys.argv[1:] if a.startswith("--config"))
here, out = pathlib.Path(__file__).parent, pathlib.Path(given["out"])
name = pathlib.Path(given["--config"]).stem + given.get("sparsity", "") + "-" + given["seed"]
with (here / "log").open("a") as log:
    log.write(f"+{name}\\n")
if name in (here / "block").read_text().split():
    time.sleep(30)
time.sleep(0.1)
with (here / "log").open("a") as log:
    log.write(f"-{name}\\n")
if name in (here / "fail").read_text().split():
    sys.exit(f"experiments.run: {name} diverged")
lines = json.loads((here / "lines").read_text())
with (out / "results.jsonl").open("a") as file:
    file.write(lines[name] + "\\n")
"""


def line(one):
    """The line that a run would append; a run of magnitude took 4 s."""
    values = one.config.values
    fields = dict.fromkeys(measure.Record._fields) | {"method": one.config.label, "options": one.config.options}
    seconds = 4.0 if values.method == "magnitude" else 1.0
    return measure.Record(**fields | {"seed": values.seed, "seconds": seconds})


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A folder with a sweep of five runs, in `out` what they wrote; `log` says what ran when."""
    file = tmp_path / "sweep.py"
    file.write_text(SWEEP.format(study=STUDY))
    (tmp_path / "fake.py").write_text(FAKE)
    (tmp_path / "fail").write_text("")
    (tmp_path / "block").write_text("")
    (tmp_path / "log").write_text("")
    monkeypatch.setattr(sweeps, "COMMAND", (sys.executable, "-S", str(tmp_path / "fake.py")))
    changes = [("out", str(tmp_path / "out"))]
    planned = sweeps.plan(list(configs.load_module(str(file), ("runs",)).runs()), changes, quick=False)
    named = {}
    for one in planned:
        values = one.config.values
        sparsity = str(values.sparsity) if values.method == "magnitude" else ""
        named[f"{pathlib.Path(one.config.file).stem}{sparsity}-{values.seed}"] = one
    lines = {name: json.dumps(line(one)._asdict()) for name, one in named.items()}
    (tmp_path / "lines").write_text(json.dumps(lines))
    return types.SimpleNamespace(folder=tmp_path, planned=planned, names=list(lines))


def call(study, *arguments):
    return sweep.main([str(study.folder / "sweep.py"), f"--config.out={study.folder / 'out'}", *arguments])


def started(study):
    return [text[1:] for text in (study.folder / "log").read_text().split() if text[0] == "+"]


def records(study):
    return measure.read(study.folder / "out" / "results.jsonl")


def test_dry_run_prints_every_run_and_an_estimate_and_starts_nothing(study, capsys):
    assert call(study, "--dry-run", "--jobs", "2") == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "5 runs: 0 finished, 5 to do; about 25 seconds with 2 at a time"
    assert len(printed) == 6
    assert "magnitude, pooled, 70%, seed 1" in printed[5]
    assert f"python -m experiments.run --config={STUDY}/magnitude.py --config.allocation=pooled" in printed[5]
    assert not (study.folder / "out").exists()
    (study.folder / "out").mkdir()
    for one in study.planned[:2]:  # the dense run, which took 1 s, and one of magnitude, which took 4 s
        measure.append(study.folder / "out" / "results.jsonl", line(one))
    assert call(study, "--dry-run") == 0
    assert capsys.readouterr().out.startswith("5 runs: 2 finished, 3 to do; about 12 seconds with 1 at a time\n")
    with (study.folder / "out" / "results.jsonl").open("r+b") as file:  # the second line becomes half a line
        file.truncate(file.seek(0, 2) - 9)
    with pytest.warns(UserWarning, match="line 2, the last, is half-written"):
        assert call(study, "--dry-run") == 0
    assert capsys.readouterr().out.startswith("5 runs: 1 finished, 4 to do; about 4 seconds")  # all that is known: 1 s


def test_a_plan_of_quick_runs_takes_less_time_and_says_each_value_once(study, capsys):
    file = study.folder / "sweep.py"
    file.write_text(file.read_text().replace("SECONDS = 10", "SECONDS = 600"))
    assert call(study, "--dry-run", "--quick", "--config.seed=1") == 0
    first, *others = capsys.readouterr().out.splitlines()
    assert first.endswith("3 to do; about 30 seconds with 1 at a time")
    assert all(text.count("--config.seed=") == text.count("--config.seed=1 ") == 1 for text in others)


def test_failed_runs_are_listed_and_the_same_command_tries_only_them_again(study, capsys):
    (study.folder / "fail").write_text("magnitude0.5-1 magnitude0.7-0")
    assert call(study) == 1
    assert started(study) == study.names
    printed = capsys.readouterr().out
    assert "2 of 5 runs failed; the same command tries them again:" in printed
    assert "  magnitude, pooled, 50%, seed 1: experiments.run: magnitude0.5-1 diverged\n" in printed
    assert len(records(study)) == 3
    (study.folder / "fail").write_text("")
    assert call(study) == 0
    assert started(study)[5:] == ["magnitude0.5-1", "magnitude0.7-0"]
    assert sorted((r.method, r.seed) for r in records(study)) == sorted(
        (one.config.label, one.config.values.seed) for one in study.planned
    )
    capsys.readouterr()
    assert call(study) == 0
    assert "5 runs: 5 finished, 0 to do" in capsys.readouterr().out
    assert len(started(study)) == 7


def test_the_error_of_a_run_is_its_last_words_whatever_else_it_printed(study, capsys):
    """What it prints is flushed behind its errors, and a killed process says nothing for itself."""
    (study.folder / "fail").write_text("magnitude0.5-1")
    text = FAKE.replace("time.sleep(0.1)", "print('calibrating')\ntime.sleep(0.1)")
    kill = "if name == 'magnitude0.7-0':\n    import os\n    print('w', file=sys.stderr)\n    os.kill(os.getpid(), 9)\n"
    (study.folder / "fake.py").write_text(text.replace("lines = json", kill + "lines = json"))
    assert call(study) == 1
    printed = capsys.readouterr().out
    assert "  magnitude, pooled, 50%, seed 1: experiments.run: magnitude0.5-1 diverged\n" in printed
    assert "  magnitude, pooled, 70%, seed 0: killed by signal 9\n" in printed


def test_runs_are_told_apart_by_their_folder_and_by_their_file(tmp_path):
    dense, other = str(STUDY / "dense.py"), tmp_path / "other.py"
    other.write_text((STUDY / "dense.py").read_text())
    runs = [sweeps.Run(dense, (("out", str(tmp_path / name)),)) for name in ("a", "b", "a")]
    planned = sweeps.plan(runs, [], quick=False)
    assert [pathlib.Path(one.config.values.out).name for one in planned] == ["a", "b"]
    (tmp_path / "a").mkdir()
    measure.append(tmp_path / "a" / "results.jsonl", line(planned[0]))
    assert sweeps.split(planned)[0] == planned[1:]
    with pytest.raises(ValueError, match=r"dense.py and .*other.py both have a run 'dense' with the same options"):
        sweeps.plan([sweeps.Run(dense, ()), sweeps.Run(str(other), ())], [], quick=False)


def test_n_run_at_a_time_and_no_more(study):
    assert call(study, "--jobs", "2") == 0
    running, most = 0, 0
    for text in (study.folder / "log").read_text().split():
        running += 1 if text[0] == "+" else -1
        most = max(most, running)
    assert most == 2
    assert len(records(study)) == 5


def test_interrupting_keeps_the_lines_and_stops_the_processes(study, monkeypatch, capsys):
    (study.folder / "block").write_text(" ".join(study.names[2:]))  # these would take long
    sleep, naps, processes = sweeps.time.sleep, iter(range(10**6)), []
    start = sweeps._start
    monkeypatch.setattr(sweeps, "_start", lambda one: processes.append(start(one)) or processes[-1])

    def nap(seconds):
        sleep(seconds)
        if len(processes) == 4 and len(started(study)) == 4:  # both of the second pair have begun
            raise KeyboardInterrupt
        assert next(naps) < 400

    monkeypatch.setattr(sweeps.time, "sleep", nap)
    assert call(study, "--jobs", "2") == 130
    assert "interrupted: 2 of 5 runs have their line; the same command goes on" in capsys.readouterr().out
    assert len(records(study)) == 2
    assert all(process.process.returncode not in (None, 0) for process in processes[2:])
    (study.folder / "block").write_text("")
    monkeypatch.undo()
    monkeypatch.setattr(sweeps, "COMMAND", (sys.executable, "-S", str(study.folder / "fake.py")))
    assert call(study) == 0
    assert len(records(study)) == 5


REAL = """
import pathlib, sys, time
from experiments import run
from spartax import measure
def measured(config, saved):
    pathlib.Path("GO.asked").touch()
    while not pathlib.Path("GO").exists():
        time.sleep(0.05)
    fields = dict.fromkeys(measure.Record._fields)
    fields |= {"method": config.label, "options": config.options, "seed": config.values.seed, "seconds": 1.0}
    return measure.Record(**fields | {"bytes_disk": 1, "clean": 0.5})
run.measured = measured
sys.exit(run.main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_two_sweeps_on_one_folder_measure_a_run_once(study, monkeypatch, capsys):
    """The real runner with its locks: the second says what it left to the first, and is done once that is."""
    (study.folder / "real.py").write_text(REAL.replace("GO", str(study.folder / "go")))
    text = SWEEP.format(study=STUDY).splitlines(keepends=True)
    (study.folder / "sweep.py").write_text("".join(text[:-1]))  # the dense network alone
    monkeypatch.setattr(sweeps, "COMMAND", (sys.executable, str(study.folder / "real.py")))
    codes = []
    first = threading.Thread(target=lambda: codes.append(call(study)))
    first.start()
    while first.is_alive() and not (study.folder / "go.asked").exists():
        time.sleep(0.05)
    assert call(study) == run.BUSY
    assert "1 of 1 runs are left to other processes" in capsys.readouterr().out
    (study.folder / "go").touch()
    first.join()
    assert codes == [0]
    assert call(study) == 0
    assert [r.method for r in records(study)] == ["dense"]


def test_a_run_that_another_process_ends_meanwhile_is_not_left_to_it(study, monkeypatch, capsys):
    """Five are busy; at the end the lines of four are there."""
    (study.folder / "out").mkdir()

    def busy(config):
        if config.values.method != "dense":
            measure.append(study.folder / "out" / "results.jsonl", line(sweeps.Planned(config, ())))
        return run.BUSY

    monkeypatch.setattr(sweeps.runner, "run", busy)
    assert call(study, "--here") == run.BUSY
    printed = capsys.readouterr().out
    assert printed.endswith(":\n  dense, seed 0: being measured by another process\n")
    assert "1 of 5 runs are left to other processes; the same command later tells" in printed


@pytest.mark.parametrize(("most", "given_back"), [(0, 5), (10**9, 0)])
def test_runs_in_one_process_give_compiled_programs_back_before_linux_refuses_more(
    study, monkeypatch, most, given_back
):
    (study.folder / "out").mkdir()
    done = []
    monkeypatch.setattr(sweeps.runner, "run", lambda config: run.BUSY)
    monkeypatch.setattr(sweeps, "MOST_MAPS", most)
    monkeypatch.setattr(sweeps.jax, "clear_caches", lambda: done.append(None))
    assert call(study, "--here") == run.BUSY
    assert len(done) == given_back
    assert sweeps.maps() > 50 or sys.platform != "linux"


def test_slurm_gets_an_array_of_the_runs_that_are_left(study, monkeypatch, capsys):
    asked = {}

    class Executor:
        def __init__(self, folder, cluster):
            asked["made"] = (folder, cluster)

        def update_parameters(self, **parameters):
            if "partition" in parameters:
                raise NameError("Unknown argument 'partition'")
            asked["parameters"] = parameters

        def map_array(self, function, arguments):
            asked["calls"] = function, arguments
            return [types.SimpleNamespace(job_id=f"7_{i}") for i in range(len(arguments))]

    monkeypatch.setitem(sys.modules, "submitit", types.SimpleNamespace(AutoExecutor=Executor))
    (study.folder / "out").mkdir()
    measure.append(study.folder / "out" / "results.jsonl", line(study.planned[0]))
    assert call(study, "--jobs", "8", "--slurm", "timeout_min=60", "slurm_partition=gpu") == 0
    assert "submitted 4 runs: 7_0, 7_1, 7_2, 7_3;" in capsys.readouterr().out
    assert asked["made"] == (study.folder / "out" / "slurm", "slurm")
    assert asked["parameters"] == {"slurm_array_parallelism": 8, "timeout_min": 60, "slurm_partition": "gpu"}
    function, arguments = asked["calls"]
    assert arguments == [one.arguments for one in study.planned[1:]]
    seen = []
    function(arguments[0], lambda given: seen.append(given) or 0)
    assert seen == [arguments[0]]
    with pytest.raises(RuntimeError, match="exit code 2"):
        function(arguments[0], lambda given: 2)
    assert call(study, "--slurm", "partition=gpu") == 2
    assert "--slurm: Unknown argument 'partition'" in capsys.readouterr().err
    assert call(study, "--slurm", "gpu") == 2
    assert "--slurm takes KEY=VALUE, as timeout_min=60; got 'gpu'" in capsys.readouterr().err


def test_submitit_starts_what_it_is_given_where_it_is_installed(study, monkeypatch):
    """Its executor of this machine in place of the cluster's; the line of the run is there already."""
    submitit = pytest.importorskip("submitit")
    jobs = []

    class Local(submitit.AutoExecutor):
        def __init__(self, folder, cluster):
            super().__init__(folder=folder, cluster="local")

        def map_array(self, *given):
            jobs.extend(super().map_array(*given))
            return jobs

    monkeypatch.setattr(submitit, "AutoExecutor", Local)
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
    out = study.folder / "out"
    out.mkdir()
    measure.append(out / "results.jsonl", line(study.planned[0]))
    assert sweeps.on_slurm(study.planned[:1], out, 1, {"timeout_min": 5}) == [job.job_id for job in jobs]
    assert [job.result() for job in jobs] == [None]
    assert "dense, seed 0: already in" in jobs[0].stdout()


def test_slurm_without_submitit_says_what_to_install(study, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert call(study, "--slurm") == 2
    assert "submitit, which is not installed: pip install -e '.[slurm]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--jobs", "0"], "--jobs must be at least 1; got 0"),
        (["--config.sede=1"], "got 'sede'. Did you mean 'seed'?"),
        (["--config.out=/dev/null/x"], "--config.out=/dev/null/x cannot be written to"),
        (["--dryrun"], "unknown argument '--dryrun'"),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(study, arguments, message, capsys):
    assert call(study, *arguments) == 2
    assert message in capsys.readouterr().err
    assert started(study) == []


def test_a_missing_package_or_results_that_cannot_be_read_are_one_line(study, capsys):
    config = study.folder / "mine.py"
    config.write_text(
        "def get_config():\n  import torchattack\ndef label(config):\n  pass\ndef build(config):\n  pass\n"
    )
    file = study.folder / "sweep.py"
    before = file.read_text()
    file.write_text(before.replace(f"{STUDY}/dense.py", str(config)))
    assert call(study, "--dry-run") == 2
    needs = "the config needs 'torchattack', which is not installed: pip install it"
    assert capsys.readouterr().err == f"python -m experiments.sweep: {needs}\n"
    file.write_text(before)
    (study.folder / "out" / "results.jsonl").mkdir(parents=True)
    assert call(study, "--dry-run") == 1
    assert capsys.readouterr().err.startswith("python -m experiments.sweep: stopped, the lines that were written are")


def test_the_benchmark_has_five_points_and_three_seeds_of_every_method_and_baseline():
    planned = sweeps.plan(list(configs.load_module(str(STUDY / "sweep.py"), ("runs",)).runs()), [], quick=True)
    found = {}
    for one in planned:
        values = one.config.values
        family = (values.method, values.get("allocation"), values.get("equal"))
        point = next(values[name] for name in ("sparsity", "ratio", "bits", "start", "method") if name in values)
        found.setdefault(family, set()).add((point, values.seed))
    assert len(planned) == sum(map(len, found.values())) == 3 + 9 * 15 + 12
    for family, points in found.items():
        assert len({point for point, _ in points}) == {"dense": 1, "equal bytes": 4}.get(family[0], 5), family
        assert {seed for _, seed in points} == {0, 1, 2}
    baselines = {("random", None, None), ("magnitude", "uniform", None), ("magnitude", "pooled", None)}
    assert baselines | {("smaller dense", None, "bytes"), ("smaller dense", None, "macs")} < set(found)
    joined = sweeps.plan(
        list(configs.load_module(str(STUDY / "sweep.py"), ("runs",)).runs()), [("seed", "1")], quick=True
    )
    assert len(joined) == 50  # one seed for all


def test_runs_of_one_process_go_on_after_one_that_failed(study, monkeypatch, capsys):
    def run(config):
        if config.values.seed == 1:
            raise RuntimeError("no\n  memory")
        measure.append(study.folder / "out" / "results.jsonl", line(sweeps.Planned(config, ())))
        return 0

    monkeypatch.setattr(sweeps.runner, "run", run)
    assert call(study, "--here") == 1
    assert started(study) == []
    assert "  magnitude, pooled, 70%, seed 1: RuntimeError: no memory\n" in capsys.readouterr().out
    assert [r.seed for r in records(study)] == [0, 0, 0]
    assert call(study, "--here", "--jobs", "2") == 2
    assert "--here runs one after another; got --jobs 2" in capsys.readouterr().err
