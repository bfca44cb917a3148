"""The runner: config files, one line for one run, and what goes wrong for its users."""

import errno
import fcntl
import json
import pathlib
import resource
import subprocess
import sys
import threading
import types

import jax
import numpy as np
import pytest

import spartax as sx
from experiments import run
from experiments.benchmark import smaller
from experiments.common import configs, measuring, networks, results
from experiments.common.subject import Subject, first
from spartax import attacks, data, measure, models

ROOT = pathlib.Path(__file__).resolve().parents[2]
STUDY = ROOT / "experiments" / "benchmark"
DENSE, RANDOM, SMALLER = (str(STUDY / f"{name}.py") for name in ("dense", "random_pruning", "smaller"))
TINY = ["--quick", "--config.examples=16", "--config.epochs=1", "--config.queries=5"]


def fake(config, saved=None):
    """A record of this run, not measured."""
    fields = dict.fromkeys(measure.Record._fields)
    about = {"method": config.label, "options": config.options, "seed": config.values.seed, "seconds": 2.0}
    return measure.Record(**fields | about | {"bytes_disk": 1000, "clean": 0.5})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Results of a dense and a pruned network."""
    out = tmp_path_factory.mktemp("results")
    for file in (DENSE, RANDOM):
        assert run.main([f"--config={file}", f"--config.out={out}", *TINY]) == 0
    return out


def test_a_run_is_one_line_with_everything_measured(folder):
    dense, pruned = measure.read(folder / "results.jsonl")
    assert (dense.role, dense.method) == ("dense", "dense")
    assert (pruned.role, pruned.method) == ("baseline", "random, 90%")
    assert (pruned.options["sparsity"], pruned.options["examples"], pruned.options["method"]) == (0.9, 16, "random")
    assert dense.model == pruned.model == "CNN"
    assert pruned.bytes_disk < 0.3 * dense.bytes_disk
    assert pruned.macs["nonzero"] < 0.5 * pruned.macs["run"] == 0.5 * dense.macs["run"]
    shapes = jax.eval_shape(models.CNN((8,), 32).init, jax.random.key(0), np.zeros((1, 8, 8, 1), np.float32))
    counts = {path: w.size for path, w in sx.tree.weights(shapes).items() if w.ndim > 1}
    removed = sum(zeros * counts[path] for path, zeros in pruned.sparsity.items())
    assert removed == pytest.approx(0.9 * sum(counts.values()), abs=len(counts))
    for record in (dense, pruned):
        radii = list(record.curve.values())
        assert [float(eps) for eps in record.curve] == [0.0, 0.1, 0.2]
        assert radii == sorted(radii, reverse=True)
        assert radii[:2] == [record.clean, record.worst]
        assert record.worst <= min(record.robust.values())
        assert 0 <= record.masking <= record.clean
        assert record.latency is None  # --quick takes no times


def test_a_run_that_is_there_is_not_measured_again(folder, monkeypatch, capsys):
    before = (folder / "results.jsonl").read_bytes()
    monkeypatch.setattr(run, "measured", None)
    assert run.main([f"--config={RANDOM}", f"--config.out={folder}", *TINY]) == 0
    assert "random, 90%, seed 0: already in" in capsys.readouterr().out
    assert (folder / "results.jsonl").read_bytes() == before
    monkeypatch.setattr(run, "measured", fake)
    assert run.main([f"--config={RANDOM}", f"--config.out={folder}", *TINY, "--config.seed=1"]) == 0
    assert [r.seed for r in measure.read(folder / "results.jsonl")] == [0, 0, 1]


@pytest.fixture
def loaded(monkeypatch):
    """A network that is there at once, at the radius of the config."""
    images = data.Dataset(np.eye(3, 4, dtype=np.float32).reshape(3, 2, 2, 1), np.arange(3), "eye", 3, tuple("abc"))
    weights = {"params": {"kernel": np.eye(4, 3, dtype=np.float32)}}
    apply = lambda variables, x: x.reshape(len(x), -1) @ variables["params"]["kernel"]  # noqa: E731
    monkeypatch.setattr(
        networks, "load", lambda values: Subject("eye", apply, weights, images, values.eps, 255, images)
    )


def test_a_mesh_of_devices_changes_no_line(loaded, tmp_path, capsys):
    given = [f"--config={DENSE}", *TINY, "--config.eps=0.3", "--config.curve=()", "--config.pgd_steps=2"]
    assert run.main([*given, f"--config.out={tmp_path / 'one'}"]) == 0
    assert run.main([*given, f"--config.out={tmp_path / 'many'}", "--config.mesh=(8, 1)"]) == 0
    one, many = (measure.read(tmp_path / name / "results.jsonl")[0] for name in ("one", "many"))
    assert one._replace(seconds=0, bytes_disk=0) == many._replace(seconds=0, bytes_disk=0)
    for mesh, said in (("(3, 1)", "3 x 1 = 3 devices; there are 8"), ("(8,)", "must be (rows, columns) of devices")):
        assert run.main([*given, f"--config.out={tmp_path / 'none'}", f"--config.mesh={mesh}"]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("more", [(), ("--quick", "--config.autoattack=True")])
def test_at_radius_zero_no_attack_is_run_and_no_number_under_attack_told(loaded, monkeypatch, tmp_path, more):
    monkeypatch.setattr(run.measuring.measure, "robustness", None)  # not called
    assert (
        run.main([f"--config={DENSE}", f"--config.out={tmp_path}", "--config.eps=0", "--config.timed=False", *more])
        == 0
    )
    (record,) = measure.read(tmp_path / "results.jsonl")
    assert (record.clean, record.robust, record.worst, record.curve, record.masking) == (1.0, {}, None, None, None)


def test_autoattack_on_top_of_no_attack_is_refused_before_the_work(loaded, monkeypatch, tmp_path, capsys):
    file = ROOT / "experiments" / "pruning" / "one_shot.py"
    monkeypatch.setattr(run, "compressed", None)
    arguments = [f"--config.out={tmp_path}", "--config.eps=0.1", "--config.autoattack=True"]
    assert run.main([f"--config={file}", *arguments]) == 2
    assert f"adds AutoAttack to other attacks, and {file} runs none" in capsys.readouterr().err


@pytest.mark.parametrize("rounding", [False, True])
def test_what_autoattack_breaks_is_taken_off_the_claim_and_off_the_worst(loaded, tmp_path, rounding):
    """Of three images PGD breaks none; the ensemble breaks one by gradients, which masks nothing, one by queries.

    Of a network that rounds activations it follows the other routes too, and what only they break was masked.
    """
    subject = networks.load(configs.load(DENSE, [("eps", "0.1")], quick=True).values)
    x, y = subject.test.x, subject.test.y
    last = "apgd-ce by again" if rounding else "square"
    by, called = types.SimpleNamespace(attack=np.array(["apgd-ce", last, ""])), []
    broken = types.SimpleNamespace(robust=np.array([False, False, True]), x_adv=x, broken_by=by, warnings=[])
    bench = measuring.bench(subject, {"FGSM": attacks.fgsm(0.1)}, 0)
    params = subject.variables
    if rounding:
        params = {"params": {"kernel": sx.QuantizedInputs(params["params"]["kernel"])}}
    found = measuring.record(
        bench,
        params,
        tmp_path / "weights",
        {"method": "dense", "options": {}, "role": "dense"},
        start=0.0,
        routes={"again": jax.tree_util.Partial(subject.apply_fn, subject.variables)},
        ensemble=lambda key, logits_fn, x, y, routes: called.append(set(routes)) or broken,
        timed=False,
    )
    assert len(y) == found.examples == 3
    assert called == [{"again"} if rounding else set()]
    assert (found.robust["FGSM"], found.broken_by) == (1.0, {"FGSM": 0, "AutoAttack": 2})
    np.testing.assert_allclose([found.worst, found.masking], [1 / 3, 1 / 3])


def test_the_security_curve_at_the_own_radius_is_no_better_than_the_attacks_there(loaded, tmp_path):
    """FGSM breaks all three images at 0.6, the attack of the curve none."""
    subject = networks.load(configs.load(DENSE, [("eps", "0.6")], quick=True).values)
    weak = lambda key, logits_fn, x, y, index=None: x  # noqa: E731
    found = measuring.record(
        measuring.bench(subject, {"FGSM": attacks.fgsm(0.6)}, 0),
        subject.variables,
        tmp_path / "weights",
        {"method": "dense", "options": {}, "role": "dense"},
        start=0.0,
        curve={0.6: weak},
        timed=False,
    )
    assert found.worst == 0.0
    assert found.curve == {"0": 1.0, "0.6": 0.0}


def test_a_lock_makes_its_folder(tmp_path):
    folder = tmp_path / "not" / "there"
    with results.locked(folder, "a run") as free, results.locked(folder, "a run") as again:
        assert (free, again) == (True, False)


def test_the_trained_network_is_that_of_the_lines_and_is_trained_once(folder, monkeypatch):
    monkeypatch.setattr(networks, "adversarially_trained", None)
    config = configs.load(DENSE, [("out", str(folder)), *configs.parse_changes(TINY[1:])], quick=True)
    subject = networks.load(config.values)
    accuracy = measure.accuracy(subject.apply_fn, subject.variables, subject.test.x, subject.test.y)
    assert accuracy == measure.read(folder / "results.jsonl")[0].clean


def test_what_the_command_line_says_wins_over_quick_and_the_file():
    config = configs.load(RANDOM, [("eps", "8/255"), ("curve", "(2, 3)"), ("sparsity", "1/2")], quick=True)
    assert config.values.eps == 8 / 255
    assert config.values.curve == (2, 3)
    assert config.values.sparsity == 0.5
    assert config.values.epochs == configs.QUICK["epochs"]
    assert config.label == "random, 50%"
    assert {"seed", "out", "data_dir", "weights"}.isdisjoint(config.options)
    back = json.loads(json.dumps(config.options))
    assert configs.identity(config.label, back, 0) == config.identity


def test_other_weights_are_another_run_wherever_they_lie():
    usual, a, b, moved = (
        configs.load(RANDOM, [("weights", w)] if w else []) for w in ("", "x/a.st", "x/b.st", "y/a.st")
    )
    assert len({usual.identity, a.identity, b.identity}) == 3
    assert moved.identity == a.identity
    assert a.options["weights"] == "a"
    assert "weights" not in usual.options  # so that the lines of before are the lines of now


MINE = """
import numpy as np
from experiments.common import configs, networks
from experiments.common.subject import Subject
from spartax import data
NOISE = {"w": np.random.default_rng(0).random(20000, np.float32)}
def get_config():
  return configs.base(method="mine", timed=False)
def label(config):
  return "mine"
def subject(config):
  images = data.Dataset(np.zeros((1, 2, 2, 1), np.float32), np.zeros(1, np.int32), "dark", 3, ("a", "b", "c"))
  return Subject("mine", lambda variables, x: x, NOISE, images, 0.0, 255)
"""


def missing_package(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("import torchattack\n")
    return [f"--config={file}"], f"{file} imports 'torchattack', which is not installed"


def package_missing_later(tmp_path):
    """`build` imports it, when the network is there already."""
    file = tmp_path / "mine.py"
    file.write_text(MINE + "def build(config):\n  import torchattack\n")
    return [
        f"--config={file}",
        "--config.eps=0",
    ], "the config needs 'torchattack', which is not installed: pip install it"


def broken_file(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def get_config(:\n")
    return [f"--config={file}"], "cannot be imported: SyntaxError"


def file_without_build(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def get_config():\n  pass\ndef label(config):\n  pass\n")
    return [f"--config={file}"], "must define build"


def file_without_a_config(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def get_config():\n  return {'seed': 0}\ndef label(config):\n  pass\ndef build(config):\n  pass\n")
    return [f"--config={file}"], "get_config() must give a ConfigDict begun with configs.base(); got {'seed': 0}"


def no_weights(tmp_path):
    weights = tmp_path / "w.safetensors"
    return [
        f"--config={DENSE}",
        "--config.network=cnn_a",
        f"--config.data_dir={tmp_path}",
        f"--config.weights={weights}",
    ], (f"--weights: no file {weights}")


def foreign_lines(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "results.jsonl").write_text('{"flavor": 1}\n')
    return [f"--config={DENSE}"], "line 1 has unknown or missing fields: broken_by"


WRONG = [
    missing_package,
    package_missing_later,
    broken_file,
    file_without_build,
    file_without_a_config,
    no_weights,
    foreign_lines,
    lambda _: ([f"--config={STUDY / 'denes.py'}"], f"no file {STUDY / 'denes.py'}; there are {DENSE}"),
    lambda _: ([f"--config={DENSE}", "--config.sede=1"], "got 'sede'. Did you mean 'seed'?"),
    lambda _: ([f"--config={DENSE}", "--config.seed=one"], "--config.seed must be a value of type int; got 'one'"),
    lambda _: ([f"--config={DENSE}", "--config.network=vgg"], "--config.network must be one of 'digits'"),
    lambda _: ([f"--config={DENSE}", "--config.network=resnet20"], "needs --config.data_dir=DIR"),
    lambda _: ([f"--config={DENSE}", "--config.examples=-5"], "--config.examples must be an integer of at least 1"),
    lambda _: ([f"--config={DENSE}", "--config.training=0"], "--config.training must be an integer of at least 1"),
    lambda _: ([f"--config={DENSE}", "--config.epochs=0"], "--config.epochs must be an integer of at least 1; got 0"),
    lambda _: ([f"--config={DENSE}", "--config.seed=True"], "--config.seed must be an integer of at least 0; got True"),
    lambda _: ([f"--config={DENSE}", f"--config.seed={2**32}"], "--config.seed must be in [0, 4294967295]"),
    lambda _: ([f"--config={DENSE}", "--config.eps=3"], "--config.eps must be in [0.0, 1.0]; got 3.0"),
    lambda _: ([f"--config={DENSE}", "--config.widths=(8, 0)"], "--config.widths[1] must be an integer of at least 1"),
    lambda _: ([f"--config={DENSE}", "--config.curve=('a',)"], "--config.curve[0] must be a finite number above 0"),
    lambda _: ([f"--config={DENSE}", "--config.role=metod"], "role must be one of 'method', 'baseline', 'dense'; got"),
    lambda _: ([f"--config={DENSE}", "--qick"], "unknown argument '--qick'"),
    lambda _: ([f"--config={DENSE}", "--config.out=/dev/null/x"], "cannot be written to (Not a directory)"),
]


def test_an_error_of_the_program_ends_in_a_line_that_names_it(loaded, tmp_path, capsys):
    """JAX adds lines of its own behind its errors: the last line is ours."""
    file = tmp_path / "mine.py"
    file.write_text(MINE + "def build(config):\n  import jax\n  jax.jit(lambda x: x.nothing)(1.0)\n")
    assert run.main([f"--config={file}", f"--config.out={tmp_path}", "--config.eps=0"]) == 1
    *trace, last = capsys.readouterr().err.splitlines()
    assert any("Traceback" in text for text in trace)
    assert last.startswith("python -m experiments.run: stopped, no line was written: AttributeError: ")
    assert "nothing" in last


@pytest.mark.parametrize("case", range(len(WRONG)))
def test_what_is_wrong_is_said_in_one_line(case, tmp_path, capsys):
    arguments, message = WRONG[case](tmp_path)
    assert run.main([f"--config.out={tmp_path / 'out'}", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1, error


def test_a_folder_without_the_data_set(tmp_path, shared_data, capsys):
    weights = shared_data / "weights" / "cifar10_resnet20.safetensors"
    arguments = [f"--config={DENSE}", "--config.network=resnet20", f"--config.data_dir={tmp_path}"]
    assert run.main([*arguments, f"--config.weights={weights}", f"--config.out={tmp_path}"]) == 2
    assert f"data_dir has no prepared 'cifar10': looked for {tmp_path}/cifar10" in capsys.readouterr().err


@pytest.mark.skipif(not pathlib.Path("/sys/kernel").is_dir(), reason="needs a folder that nobody may write to")
def test_a_read_only_folder_is_said_before_anything_is_measured(monkeypatch, capsys):
    monkeypatch.setattr(run, "measured", None)
    for folder in ("/sys/kernel", "/sys/kernel/new"):
        assert run.main([f"--config={DENSE}", f"--config.out={folder}"]) == 2
        assert f"--config.out={folder} cannot be written to" in capsys.readouterr().err


def test_a_folder_without_locks_is_said_before_anything_is_measured(tmp_path, monkeypatch, capsys):
    def refused(file, how):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(run, "measured", None)
    monkeypatch.setattr(fcntl, "flock", refused)
    assert run.main([f"--config={DENSE}", f"--config.out={tmp_path}"]) == 2
    assert f"--config.out={tmp_path} is on a file system without locks (Function" in capsys.readouterr().err


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_loses_no_row(tmp_path, monkeypatch, capsys):
    lines, spare = tmp_path / "out" / "results.jsonl", tmp_path / "spare"
    spare.mkdir()
    lines.parent.mkdir()
    lines.symlink_to("/dev/full")
    monkeypatch.setattr(results, "finished", lambda folder: {})  # /dev/full has no end to read to
    monkeypatch.setattr(run, "measured", fake)
    monkeypatch.setattr(results.tempfile, "tempdir", str(spare))
    assert run.main([f"--config={DENSE}", f"--config.out={lines.parent}"]) == 2
    error = capsys.readouterr().err
    assert "took no line (No space left on device); it is kept in" in error
    (kept,) = spare.glob("*.jsonl")
    assert str(kept) in error
    assert [r.method for r in measure.read(kept)] == ["dense"]
    monkeypatch.setattr(results.tempfile, "NamedTemporaryFile", lambda *a, **k: open("/dev/full/none"))  # noqa: SIM115
    assert run.main([f"--config={DENSE}", f"--config.out={lines.parent}"]) == 2
    assert '"method": "dense"' in capsys.readouterr().err  # the line itself, where nothing can be written


@pytest.fixture
def full():
    """No file may grow beyond 8 kB: more than what is tried before the work, less than a network."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("weights", ["NOISE", "networks.once(config, ['noise'], lambda saved: NOISE)"])
def test_a_full_disk_at_a_checkpoint_or_a_network_is_one_line(weights, full, tmp_path, capsys, caplog):
    file = tmp_path / "mine.py"
    file.write_text(MINE.replace(", NOISE, ", f", {weights}, ") + "def build(config):\n  return ()\n")
    assert run.main([f"--config={file}", f"--config.out={tmp_path / 'out'}", "--config.eps=0"]) == 1
    error = capsys.readouterr().err
    assert "stopped, no line was written; the same command goes on" in error
    assert "File too large" in error
    assert error.count("\n") == 1, error
    assert not caplog.records
    assert not list(tmp_path.rglob("spec.json*"))


def test_lines_are_added_by_one_process_at_a_time(tmp_path, monkeypatch):
    """Two nodes that append at once write over each other on NFS, whose lock makes one wait here."""
    append, free = measure.append, []

    def asked(path, record):
        with results.locked(tmp_path, results.APPENDING) as alone:
            free.append(alone)
        append(path, record)

    monkeypatch.setattr(measure, "append", asked)
    other = threading.Thread(target=results.keep, args=(tmp_path, fake(configs.load(DENSE))))
    with results.locked(tmp_path, results.APPENDING):
        other.start()
        other.join(0.1)
        assert not (tmp_path / "results.jsonl").exists()
    other.join()
    assert free == [False]
    assert len(measure.read(tmp_path / "results.jsonl")) == 1


def test_a_line_that_fits_in_part_raises_and_counts_as_half_written(tmp_path):
    file, record = tmp_path / "r.jsonl", fake(configs.load(DENSE))
    measure.append(file, record)
    size, limits = file.stat().st_size, resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            measure.append(file, record)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert file.stat().st_size == size + 10
    with pytest.warns(UserWarning, match="line 2, the last, is half-written"):
        assert len(measure.read(file)) == 1
    measure.append(file, record)
    with pytest.warns(UserWarning, match="line 2 is half-written"):
        assert len(measure.read(file)) == 2


def test_a_half_written_line_is_measured_again(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "measured", fake)
    arguments = [f"--config={DENSE}", f"--config.out={tmp_path}"]
    assert run.main(arguments) == 0
    lines = tmp_path / "results.jsonl"
    lines.write_bytes(lines.read_bytes()[:-20])
    with pytest.warns(UserWarning, match="line 1, the last, is half-written"):
        assert run.main(arguments) == 0
    with pytest.warns(UserWarning, match="half-written"):
        assert len(measure.read(lines)) == 1


def test_an_interrupt_writes_no_line_and_leaves_checkpoints_until_there_is_one(tmp_path, monkeypatch, capsys):
    def stop(config, saved):
        (saved / "stage").mkdir(parents=True)
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "measured", stop)
    assert run.main([f"--config={DENSE}", f"--config.out={tmp_path}"]) == 130
    assert not (tmp_path / "results.jsonl").exists()
    assert "the same command goes on from the last checkpoint" in capsys.readouterr().err
    monkeypatch.setattr(run, "measured", fake)
    assert run.main([f"--config={DENSE}", f"--config.out={tmp_path}", "--config.seed=1"]) == 0
    assert len([*tmp_path.rglob("stage")]) == 1  # those of another run stay
    assert run.main([f"--config={DENSE}", f"--config.out={tmp_path}"]) == 0  # the lock is gone
    assert not [*tmp_path.rglob("stage")]


HOLD = """
import pathlib, sys
from experiments.common import results
with results.locked(pathlib.Path(sys.argv[1]), sys.argv[2]) as free:
    print(free, flush=True)
    sys.stdin.read()
"""


def test_a_run_that_another_process_measures_is_left_to_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "measured", fake)
    arguments = [f"--config={DENSE}", f"--config.out={tmp_path}"]
    command = [sys.executable, "-c", HOLD, str(tmp_path), run.parse(arguments).identity]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"True\n"
        assert run.main(arguments) == run.BUSY
        assert "dense, seed 0: another process is measuring it" in capsys.readouterr().out
        assert run.main([*arguments, "--config.seed=1"]) == 0  # other runs go on
        other.kill()
    assert run.main(arguments) == 0  # a killed process holds nothing
    assert [r.seed for r in measure.read(tmp_path / "results.jsonl")] == [1, 0]


def test_a_lock_that_is_given_back_leaves_the_others_of_its_process(tmp_path):
    """A run holds its row while the network it needs is trained under another lock; another process asks then."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]

    def free(what):
        return subprocess.run([*command, what], stdin=subprocess.DEVNULL, capture_output=True, check=True).stdout

    with results.locked(tmp_path, "row") as own:
        with results.locked(tmp_path, "network", wait=True) as inner:
            assert own
            assert inner
        assert free("row") == b"False\n"
    assert free("row") == b"True\n"


@pytest.mark.parametrize("equal", ["bytes", "macs"])
def test_the_narrower_network_is_the_widest_that_costs_no_more(equal, monkeypatch):
    """The cost of a CNN of widths (w, 2w, 4w) and 4w hidden units on 8x8 digits, by hand."""
    module = models.CNN()
    images = first(data.digits("test"), 4)
    variables = jax.jit(module.init)(jax.random.key(0), images.x)
    dense = Subject("CNN", models.eval_apply(module), variables, images, 0.1, 16, images, module)
    monkeypatch.setattr(networks, "trained", lambda subject, config: {})
    config = smaller.get_config()
    config.update({"equal": equal, "sparsity": 0.8})
    found = smaller.network(config, dense).module

    def cost(a, b, c, h):
        kernels, biases = [9 * a, 9 * a * b, 9 * b * c, 4 * c * h, 10 * h], a + b + c + h + 10
        sites = [64, 16, 4, 1, 1]
        return 4 * (sum(kernels) + biases) if equal == "bytes" else np.dot(kernels, sites)

    kernels, biases = 9 * 16 + 9 * 16 * 32 + 9 * 32 * 64 + 256 * 64 + 640, 186
    if equal == "bytes":
        most = 4 * 0.2 * kernels + kernels / 8 + 4 * biases  # values, one bit for every weight, biases
    else:
        most = measure.macs(dense.apply_fn, smaller_pruned(dense), images.x).nonzero
    widest = max(
        (tuple(max(1, round(f * w)) for w in (16, 32, 64, 64)) for f in np.linspace(0, 1, 4001)),
        key=lambda widths: (cost(*widths) <= most) * cost(*widths),
    )
    assert (*found.widths, found.hidden) == widest


def smaller_pruned(dense):
    from spartax import prune

    pruning = prune.prune(prune.magnitude(), 0.8, prune.pooled())
    return sx.compress(dense.apply_fn, dense.variables, pruning, batches=[dense.test.x[:1]]).params
