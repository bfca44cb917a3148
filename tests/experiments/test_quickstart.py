import json

import jax
import numpy as np
import pytest

from experiments.quickstart import measuring, options, run, subject
from experiments.quickstart.compressions import Compression
from spartax import checkpoint, measure
from spartax.arrays import dense, is_leaf

NAMES = [
    "dense",
    "random 90 %",
    "magnitude 90 %, per layer",
    "magnitude 90 %, global",
    "low rank, 25 % of bytes",
    "int8",
    "int4, groups of 16",
    "int4 + rank 2",
    "magnitude 50 %, int8",
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One quick run; the folder existed before with older results."""
    out = tmp_path_factory.mktemp("results") / "quickstart"
    out.mkdir()
    (out / "results.jsonl").write_text("old\n")
    assert run.main(["--quick", "--examples", "48", "--out", str(out)]) == 0
    return out


@pytest.mark.slow
def test_every_compression_has_a_row_whose_bytes_are_those_on_disk(finished):
    records = measure.read(finished / "results.jsonl")
    assert [r.method for r in records] == NAMES
    folders = sorted((finished / "checkpoints").iterdir())
    assert len(folders) == len(NAMES)
    assert sorted(r.bytes_disk for r in records) == sorted(checkpoint.size_on_disk(f) for f in folders)
    full = records[0]
    assert full.role == "dense"
    assert full.clean > 0.5
    for record in records[1:]:
        assert record.bytes_disk < 0.5 * full.bytes_disk
        assert record.macs["dense"] == full.macs["dense"]
        assert record.sparsity
        assert record.latency["dense"]["repeats"] >= 50
        assert record.worst <= min(record.robust.values()) <= record.clean
        assert list(record.robust) == ["FGSM", "PGD-5x1", "Square-10"]


@pytest.mark.slow
def test_rows_are_what_their_names_say(finished):
    by_name = {r.method: r for r in measure.read(finished / "results.jsonl")}
    for name in NAMES[1:4]:
        sizes = [w.size for w in jax.tree.leaves(saved(finished, "dense")) if w.ndim > 1]
        zeros = sum(w.size for w in kernels(finished, name)) - sum(np.count_nonzero(w) for w in kernels(finished, name))
        assert zeros == pytest.approx(0.9 * sum(sizes), abs=len(sizes))
    assert by_name["low rank, 25 % of bytes"].macs["run"] < by_name["dense"].macs["run"]
    assert by_name["int8"].clean == pytest.approx(by_name["dense"].clean, abs=0.1)
    assert by_name["magnitude 50 %, int8"].bytes_packed < by_name["int8"].bytes_packed
    assert by_name["int4, groups of 16"].bytes_packed < by_name["int8"].bytes_packed


def saved(folder, name):
    slug = "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())
    return checkpoint.restore(folder / "checkpoints" / slug)


def kernels(folder, name):
    leaves = jax.tree.leaves(saved(folder, name), is_leaf=is_leaf)
    return [np.asarray(dense(w) if is_leaf(w) else w) for w in leaves if w.ndim > 1]


@pytest.mark.slow
def test_the_report_is_the_one_of_the_lines(finished):
    page = (finished / "report.md").read_text()
    assert (
        measure.markdown(measure.read(finished / "results.jsonl"), "CNN: compressed in one shot, no fine-tuning")
        in page
    )
    assert all(f"| {name}" in page for name in NAMES)
    assert "eps 0.1 (1.6/16)" in page
    assert (finished / "accuracy_vs_bytes.png").read_bytes()[:4] == b"\x89PNG"
    assert [entry.name for entry in finished.parent.iterdir()] == ["quickstart"]  # nothing left of the swap


def fake_row(bench, compression, folder):
    del bench
    (folder / compression.name).mkdir(parents=True)
    times = {"median": 1e-3, "low": 1e-3, "high": 1e-3, "batch": 8}
    fields = dict.fromkeys(measure.Record._fields)
    return measure.Record(**fields)._replace(
        method=compression.name,
        options={},
        role=compression.role,
        model="CNN",
        data="digits",
        seed=0,
        examples=8,
        threat={"norm": "linf", "eps": 0.1, "levels": 16},
        bytes_disk=1000,
        macs={"dense": 1, "run": 1, "nonzero": 1},
        clean=0.5,
        robust={"PGD": 0.25},
        worst=0.25,
        warnings=[],
        latency={**times, "dense": times},
        seconds=0.1,
        device="cpu",
    )


class Data:
    x, y, name = np.zeros((8, 8, 8, 1), np.float32), np.zeros(8, np.int32), "digits"


NETWORK = subject.Subject("CNN", lambda v, x: x, {}, Data(), 0.1, 16)


def test_what_was_compressed_is_attacked_along_the_dense_network_too(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(measuring.measuring, "record", lambda *args, routes, **about: asked.append(routes))
    variables = {"kernel": np.ones(3, np.float32)}
    bench = measuring.bench(NETWORK._replace(variables=variables), options.parse([]))
    halved = Compression("halved", {}, lambda apply, params, batch, key: jax.tree.map(lambda w: w / 2, params))
    for compression in (run.DENSE, halved):
        measuring.row(bench, compression, tmp_path)
    assert list(bench.attacks) == ["FGSM", "PGD-20x2", "Square-100"]
    assert asked[0] == {}
    (route,) = asked[1].items()
    assert (route[0], route[1].func, route[1].args) == ("dense parent", NETWORK.apply_fn, (variables,))


def test_an_interrupted_run_keeps_finished_rows_and_the_old_folder(tmp_path, monkeypatch, capsys):
    out = tmp_path / "q"
    monkeypatch.setattr(subject, "trained", lambda options: NETWORK)
    monkeypatch.setattr(measuring, "row", fake_row)
    assert run.main(["--out", str(out)]) == 0
    done = iter(range(3))

    def interrupted(*args):
        if next(done, None) is None:
            raise KeyboardInterrupt
        return fake_row(*args)

    monkeypatch.setattr(measuring, "row", interrupted)
    capsys.readouterr()
    assert run.main(["--out", str(out)]) == 130
    message = " ".join(capsys.readouterr().out.split())
    assert f"interrupted: 3 finished rows, their report and checkpoints are in {out}.partial/" in message
    assert [r.method for r in measure.read(tmp_path / "q.partial" / "results.jsonl")] == NAMES[:3]
    assert (tmp_path / "q.partial" / "report.md").exists()
    assert len(measure.read(out / "results.jsonl")) == 9
    monkeypatch.setattr(measuring, "row", fake_row)
    assert run.main(["--out", str(out)]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["q", "q.partial"]
    assert len(measure.read(tmp_path / "q.partial" / "results.jsonl")) == 3  # kept until somebody removes them


def test_a_second_run_leaves_the_rows_of_one_that_still_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(subject, "trained", lambda options: NETWORK)
    monkeypatch.setattr(run, "_report", lambda working, console: None)
    again = ["--out", str(tmp_path / "q")]

    def second(bench, compression, folder):
        if compression.name == NAMES[4]:  # the first has written four rows
            monkeypatch.setattr(measuring, "row", fake_row)
            assert run.main(again) == 0
        return fake_row(bench, compression, folder)

    monkeypatch.setattr(measuring, "row", second)
    assert run.main(again) == 0
    assert [r.method for r in measure.read(tmp_path / "q" / "results.jsonl")] == NAMES
    assert [p.name for p in tmp_path.iterdir()] == ["q"]


def test_a_full_disk_keeps_the_rows_and_is_one_line(tmp_path, monkeypatch, capsys):
    def full(bench, compression, folder):
        if compression.name == NAMES[2]:
            raise OSError("No space\nleft on device")
        return fake_row(bench, compression, folder)

    monkeypatch.setattr(subject, "trained", lambda options: NETWORK)
    monkeypatch.setattr(measuring, "row", full)
    assert run.main(["--out", str(tmp_path / "q")]) == 1
    line = f"No space left on device; finished rows are in {tmp_path / 'q.partial'}/\n"
    assert capsys.readouterr().err == f"{run.PROGRAM}: {line}"
    assert [r.method for r in measure.read(tmp_path / "q.partial" / "results.jsonl")] == NAMES[:2]


def test_an_interrupt_before_the_first_row_is_said(tmp_path, monkeypatch, capsys):
    def stop(options):
        raise KeyboardInterrupt

    monkeypatch.setattr(subject, "trained", stop)
    assert run.main(["--out", str(tmp_path / "q")]) == 130
    assert "before the first row" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def wrong(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    (tmp_path / "w.safetensors").write_bytes(b"nonsense")
    here = str(tmp_path)
    return {
        "--data imagenet": "invalid choice: 'imagenet'",
        "--data mnist": "--data mnist needs --weights FILE.safetensors",
        f"--weights {here}/w.safetensors": "--weights and --data-dir need --data cifar10 or mnist",
        f"--data mnist --weights {here}/none.safetensors": f"no file {here}/none.safetensors",
        f"--data mnist --weights {here}/w.safetensors --out {here}/q": "w.safetensors is no safetensors file",
        "--eps 8": "argument --eps: must be a number or fraction in (0, 1); got '8'",
        "--eps 1/0": "got '1/0'",
        "--examples 0": "argument --examples: must be a positive integer; got '0'",
        "--epoch 3": "unrecognized arguments: --epoch 3",
        f"--out {here}/mine": "holds something else than results of this program",
    }


def test_wrong_arguments_are_one_line_and_exit_code_two(tmp_path, capsys):
    for arguments, message in wrong(tmp_path).items():
        try:
            code = run.main(arguments.split())
        except SystemExit as left:
            code = left.code
        error = capsys.readouterr().err
        assert code == 2, arguments
        assert message in error
        assert error.count("\n") == 1, error
    assert (tmp_path / "mine" / "thesis.tex").exists()


def test_options_and_their_quick_defaults():
    full, quick = options.parse([]), options.parse(["--quick"])
    assert (full.examples, full.pgd_steps, full.pgd_restarts, full.queries) == (None, 20, 2, 100)
    assert quick.examples < 100
    assert quick.epochs < full.epochs
    assert options.parse(["--eps", "8/255"]).eps == 8 / 255


@pytest.mark.parametrize(
    ("training", "data", "expected"),
    [
        ("adversarial, Linf 2/255", "cifar10", 2 / 255),
        ("convex outer bound (certified), Linf 0.1", "mnist", 0.1),
        ("PGD adversarial, Linf 0.3", "mnist", 0.3),
        ("adversarial, Linf", "cifar10", 2 / 255),
        ("", "cifar10", 8 / 255),
        ("standard", "mnist", 0.3),
    ],
)
def test_eps_is_read_off_the_file(training, data, expected):
    assert subject.default_eps({"training": training}, data) == expected


def test_data_and_weights_must_fit(shared_data, capsys, tmp_path):
    weights = shared_data / "weights" / "mnist_linf01_convex.safetensors"
    arguments = ["--data", "cifar10", "--data-dir", str(shared_data), "--weights", str(weights)]
    assert run.main([*arguments, "--examples", "4", "--out", str(tmp_path / "q")]) == 2
    assert "the network reads (28, 28, 1) but (32, 32, 3) are the images of cifar10" in capsys.readouterr().err


def test_published_weights_are_loaded_with_their_threat(shared_data):
    weights = shared_data / "weights" / "mnist_linf01_convex.safetensors"
    asked = ["--data", "mnist", "--data-dir", str(shared_data), "--weights", str(weights), "--examples", "100"]
    network = subject.published(options.parse(asked), weights)
    assert network.test.x.shape == (100, 28, 28, 1)
    assert network.eps == 0.1
    accuracy = measure.accuracy(network.apply_fn, network.variables, network.test.x, network.test.y)
    assert accuracy == pytest.approx(0.98, abs=0.03)


def test_rows_are_json_lines(finished):
    for line in (finished / "results.jsonl").read_text().splitlines():
        assert json.loads(line)["versions"]["jax"] == jax.__version__
