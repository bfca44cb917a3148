import inspect
import io
import json
import pathlib
import re
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spartax as sx
from spartax import catalog, cli, data, export, lowrank, measure, models, prune, quantize
from spartax.cli import network, options, run
from spartax.measure import folder, report

SHAPE = ["--apply", "tiny_net:apply", "--shape", "1,8,8,1"]


def apply(params, x):
    return jax.nn.relu(x.reshape(len(x), -1) @ params["first"]) @ params["last"]


@pytest.fixture
def saved(tmp_path, monkeypatch):
    module = types.ModuleType("tiny_net")
    module.apply, module.number = apply, 3
    monkeypatch.setitem(sys.modules, "tiny_net", module)
    normal = np.random.default_rng(0).standard_normal
    params = {"first": jnp.asarray(normal((64, 20)), jnp.float32), "last": jnp.asarray(normal((20, 10)), jnp.float32)}
    sx.save(tmp_path / "net", params)
    return str(tmp_path / "net"), params


def zeros(params):
    return sum(int((np.asarray(w) == 0).sum()) for w in jax.tree.leaves(sx.dense(params)))


def test_compress_prunes_exactly_the_smallest(saved, tmp_path, capsys):
    net, params = saved
    assert cli.main(["compress", net, str(tmp_path / "out"), *SHAPE, "--prune", "magnitude", "--sparsity", "0.9"]) == 0
    found = sx.dense(sx.restore(tmp_path / "out"))
    assert zeros(found) == 1480 - 148
    largest = np.sort(np.concatenate([np.abs(w).ravel() for w in map(np.asarray, jax.tree.leaves(params))]))[-148:]
    kept = np.sort(np.concatenate([np.abs(w[w != 0]) for w in map(np.asarray, jax.tree.leaves(found))]))
    np.testing.assert_array_equal(kept, largest)
    printed = capsys.readouterr().out
    assert "90.0%" in printed
    size = sum(f.stat().st_size for f in (tmp_path / "out").rglob("*") if f.is_file())
    assert f"{size:,} bytes on disk" in printed


def test_compress_quantizes_into_one_file_that_inspect_reads(saved, tmp_path, capsys):
    out = str(tmp_path / "small.safetensors")
    options = ["--quantize", "integer", "--bits", "4", "--group", "4"]
    assert cli.main(["compress", saved[0], out, *SHAPE, *options]) == 0
    first = export.read_safetensors(out)["first"]
    assert isinstance(first, sx.Quantized)
    assert first.scale.size == 64 * 20 // 4
    capsys.readouterr()
    assert cli.main(["inspect", out, *SHAPE]) == 0
    printed = capsys.readouterr().out
    assert "Quantized(4-bit)" in printed
    assert "1,480 dense" in printed
    assert f"{pathlib.Path(out).stat().st_size:,} bytes" in printed


def test_a_pattern_fixes_the_sparsity_and_is_noted(saved, tmp_path):
    out = tmp_path / "out"
    assert cli.main(["compress", saved[0], str(out), *SHAPE, "--prune", "magnitude", "--pattern", "n_of_m"]) == 0
    groups = np.asarray(sx.dense(sx.restore(out)["first"])).reshape(16, 4, 20)
    largest = np.sort(np.abs(np.asarray(saved[1]["first"])).reshape(16, 4, 20), axis=1)[:, 2:]
    np.testing.assert_array_equal(np.sort(np.abs(groups), axis=1), np.concatenate([0 * largest, largest], axis=1))
    about = sx.checkpoint.extra(out)["spartax"]
    assert about["steps"] == ["magnitude, uniform, n_of_m, 50%"]
    assert about["options"]["pattern"] == "n_of_m"
    assert (about["options"]["sparsity"], about["options"]["allocation"]) == (0.5, "uniform")


def test_calibration_and_rounding_are_those_that_are_named(saved, tmp_path):
    out = tmp_path / "out"
    line = ["--quantize", "integer", "--bits", "4", "--calibration", "mse", "--rounding", "gptq"]
    images = ["--data", "digits", "--examples", "32"]
    assert cli.main(["compress", saved[0], str(out), *SHAPE, *line, *images]) == 0
    step = quantize.quantize(quantize.integer(4), quantize.mse(), quantize.gptq())
    expected = sx.compress(apply, saved[1], step, batches=[data.digits("train").x[:32]]).params
    found = sx.restore(out)
    for name in expected:
        np.testing.assert_array_equal(sx.dense(found[name]), sx.dense(expected[name]))
    about = sx.checkpoint.extra(out)["spartax"]
    assert about["steps"] == ["integer, 4 bits, mse, gptq"]
    told = {"scales": "mse", "rounding": "gptq", "calibration": "digits", "calibration_images": 32}
    assert told.items() <= about["options"].items()


def required(factory):
    return [name for name, it in inspect.signature(factory).parameters.items() if it.default is it.empty]


def test_the_help_names_what_only_python_reaches():
    plugs = {
        "prune": prune.criteria,
        "allocation": prune.allocations,
        "pattern": prune.patterns,
        "factorize": lowrank.factorizations,
        "quantize": quantize.grids,
        "calibration": quantize.calibrations,
        "rounding": quantize.roundings,
    }
    found = {
        (option, name)
        for option, package in plugs.items()
        for name in catalog.names(package)
        if required(catalog.load(package, name))
    }
    assert found == {("prune", "mad"), ("allocation", "given"), ("allocation", "by_latency")}
    for option, name in found:
        assert re.search(rf"--{option}[^-]*\b{name}\b", options.PYTHON_ALONE)


def test_compress_factorizes_within_the_bytes(saved, tmp_path):
    out = str(tmp_path / "low")
    assert cli.main(["compress", saved[0], out, *SHAPE, "--factorize", "svd", "--bytes", "0.5"]) == 0
    found = sx.restore(out)
    assert isinstance(found["first"], sx.LowRank)
    assert sx.nbytes(found) <= 1480 * 4 // 2


WRONG = [
    (["compress", "NET", "OUT", *SHAPE, "--prune", "magnitud"], "Did you mean 'magnitude'"),
    (["compress", "NET", "OUT", *SHAPE], "--prune, --factorize and --quantize"),
    (["compress", "NET", "OUT", "--prune", "magnitude"], "--apply module:function"),
    (["compress", "NET", "OUT", *SHAPE, "--quantize", "nf4", "--bits", "4"], "--quantize nf4"),
    (["compress", "NET", "OUT", *SHAPE, "--factorize", "svd"], "--energy"),
    (["compress", "NET", "OUT", *SHAPE, "--prune", "wanda"], "magnitudes"),
    (["inspect", "NET", "--apply", "tiny_net:nothing", "--shape", "1,8,8,1"], "tiny_net:nothing"),
    (["inspect", "NET", "--apply", "tiny_net:number", "--shape", "1,8,8,1"], "not a function"),
    (["inspect", "NET", "--apply", "tiny_net", "--shape", "1,8,8,1"], "module:function"),
    (["inspect", "NET", "--apply", "tiny_net:apply", "--shape", "1,9,9,1"], "fails on these params"),
    (["inspect", "OUT"], "holds no checkpoint"),
    (["report", "OUT"], "holds no results"),
    (["compress", "NET", "OUT", *SHAPE, "--prune", "mad"], "--prune mad needs attack, which only Python can give"),
    (
        ["compress", "NET", "OUT", *SHAPE, "--prune", "magnitude", "--allocation", "by_latency"],
        "by_latency needs table",
    ),
    (["compress", "NET", "OUT", *SHAPE, "--prune", "magnitude", "--pattern", "rws"], "Did you mean 'rows'"),
    (
        ["compress", "NET", "OUT", *SHAPE, "--prune", "magnitude", "--rounding", "gptq"],
        "--rounding belongs to --quantize",
    ),
    (["compress", "NET", "OUT", *SHAPE, "--quantize", "nf4", "--sparsity", "0.5"], "--sparsity belongs to --prune"),
    (["compress", "NET", "OUT", *SHAPE, "--quantize", "integer", "--rounding", "gptq"], "moments"),
    (["compress", "NET", "OUT", *SHAPE, "--quantize", "integer", "--calibration", "hqq"], "zero points"),
]


@pytest.mark.parametrize(("arguments", "says"), WRONG, ids=lambda v: v if isinstance(v, str) else None)
def test_a_wrong_input_is_one_line_and_exit_code_2(arguments, says, saved, tmp_path, capsys):
    places = {"NET": saved[0], "OUT": str(tmp_path / "out")}
    assert cli.main([places.get(a, a) for a in arguments]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


WRONG_LOGITS = [
    ("pair", "apply must give logits [4, classes] for images (4, 8, 8, 1); it gives ((4, 10), (4, 8, 8, 1))"),
    ("column", "apply must give logits [4, classes] for images (4, 8, 8, 1); it gives (4,)"),
]


@pytest.mark.parametrize(("function", "says"), WRONG_LOGITS)
@pytest.mark.parametrize("command", ["attack", "compress"])
def test_a_function_that_gives_no_logits_is_one_line(command, function, says, saved, tmp_path, capsys, monkeypatch):
    module = sys.modules["tiny_net"]
    monkeypatch.setattr(module, "pair", lambda params, x: (apply(params, x), x), raising=False)
    monkeypatch.setattr(module, "column", lambda params, x: apply(params, x)[:, 0], raising=False)
    options = {"attack": ["--eps", "0.1"], "compress": [str(tmp_path / "out"), "--prune", "taylor"]}[command]
    line = [command, saved[0], *options, "--data", "digits", "--examples", "4", "--shape", "1,8,8,1"]
    assert cli.main([*line, "--apply", f"tiny_net:{function}"]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("arguments", [["attack", "x", "--eps", "0"], ["inspect", "x", "--shape", "1,a"], ["shrink"]])
def test_a_wrong_option_is_one_line_and_exit_code_2(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(arguments)
    assert capsys.readouterr().err.count("\n") == 1


def evaluator(result, seen=None):
    """In place of AutoAttack; it notes the network and the routes."""

    def evaluate(key, judged, x, y, *, routes):
        if seen is not None:
            seen.append((judged, routes, x))
        return result

    return evaluate


def test_attack_takes_the_gradients_of_the_dense_parent_and_straight_through_what_is_rounded(
    saved, tmp_path, capsys, monkeypatch
):
    net, params = saved
    steps = quantize.quantize(quantize.integer(4)), quantize.activations(4, observer=quantize.min_max())
    dark = jnp.full((2, 8, 8, 1), 0.3)  # brighter pixels are clipped
    sx.save(tmp_path / "small", sx.compress(apply, params, *steps, batches=[dark]).params)
    by = types.SimpleNamespace(attack=np.array(["", ""]))
    result = types.SimpleNamespace(broken_by=by, clean_accuracy=1.0, robust_accuracy=1.0, warnings=())
    seen = []
    monkeypatch.setattr(run.attacks, "autoattack", lambda *a, **k: evaluator(result, seen))
    line = ["attack", str(tmp_path / "small"), *SHAPE, "--eps", "0.1", "--examples", "2"]
    assert cli.main([*line, "--parent", net]) == 0
    assert json.loads(capsys.readouterr().out)["options"]["routes"] == ["straight-through", "dense parent"]
    ((judged, routes, x),) = seen
    np.testing.assert_allclose(routes["dense parent"](x), apply(params, x), rtol=1e-5)
    slope = lambda f: jax.grad(lambda x: f(x)[0, 0])(jnp.asarray(x))  # noqa: E731
    np.testing.assert_allclose(routes["straight-through"](x), judged(x), rtol=1e-5, atol=1e-5)
    assert not np.allclose(slope(routes["straight-through"]), slope(judged))
    assert cli.main([*line, "--parent", str(tmp_path / "none")]) == 2
    assert "holds no checkpoint" in capsys.readouterr().err


def test_attack_writes_a_record_that_report_reads(saved, tmp_path, capsys, monkeypatch):
    robust = np.array([True, False, False, False])
    by = types.SimpleNamespace(attack=np.array(["", "apgd-ce", "apgd-ce", "clean"]))
    result = types.SimpleNamespace(robust=robust, broken_by=by, clean_accuracy=0.75, robust_accuracy=0.25, warnings=())
    asked = []
    monkeypatch.setattr(run.attacks, "autoattack", lambda *a, **k: asked.append(a) or evaluator(result))
    line = ["--eps", "8/255", "--examples", "4", "--out", str(tmp_path / "rows" / "a.jsonl")]
    assert cli.main(["attack", saved[0], *SHAPE, *line]) == 0
    record = json.loads(capsys.readouterr().out)
    assert asked == [(8 / 255, "linf", "standard")]
    assert (record["worst"], record["clean"], record["broken_by"]) == (0.25, 0.75, {"apgd-ce": 2})
    assert (record["macs"]["dense"], record["bytes_packed"], record["examples"]) == (1480, 1480 * 4, 4)
    assert cli.main(["report", str(tmp_path / "rows")]) == 0
    assert "25.0" in (tmp_path / "rows" / "report.md").read_text()


class Attacked(list):
    """In place of AutoAttack, which notes what it is asked to attack and breaks one image of four."""

    def __call__(self, *options, **more):
        by = types.SimpleNamespace(attack=np.array(["", "", "", "apgd-ce"]))
        result = types.SimpleNamespace(broken_by=by, clean_accuracy=1.0, robust_accuracy=0.75, warnings=())
        return evaluator(result, self)


@pytest.fixture
def attacked(monkeypatch):
    seen = Attacked()
    monkeypatch.setattr(run.attacks, "autoattack", seen)
    return seen


@pytest.fixture
def known(tmp_path):
    """Weights of a known architecture, as PyTorch stores them: CNN-A of 8 x 8 images."""
    module = models.CNNA((2, 3), 5, 10, (0.1,), (0.5,))
    (tmp_path / "weights").mkdir()
    file = tmp_path / "weights" / "net.safetensors"
    models.save(file, module, jax.jit(module.init)(jax.random.key(0), np.zeros((1, 8, 8, 1), np.float32)))
    return str(file)


def test_what_is_compressed_keeps_its_architecture_and_stands_beside_its_parent(known, attacked, tmp_path, capsys):
    small, rows = tmp_path / "small", tmp_path / "rows"
    assert cli.main(["compress", known, str(small), "--prune", "magnitude", "--sparsity", "0.5"]) == 0
    line = ["--eps", "0.1", "--examples", "4", "--out", str(rows / "a.jsonl")]
    assert cli.main(["attack", str(small), *line]) == 0
    ((judged, _, x),) = attacked
    logits = models.load(known).apply(sx.dense(sx.restore(small)), x)
    np.testing.assert_allclose(judged(x), logits, rtol=1e-5, atol=1e-5)
    assert cli.main(["attack", known, *line]) == 0
    child, dense = measure.read(rows / "a.jsonl")
    assert child.model == dense.model == dense.method == "weights/net"
    assert (child.method, child.role, dense.role) == ("magnitude, pooled, 50%", "method", "dense")
    assert {"prune": "magnitude", "sparsity": 0.5, "allocation": "pooled"}.items() <= child.options.items()
    assert len(folder.read(rows)) == 1
    found = network.read(small, None, None)
    assert network.write(tmp_path / "small.safetensors", found) == (tmp_path / "small.safetensors").stat().st_size
    again = network.read(tmp_path / "small.safetensors", None, None)
    assert (again.shape, again.about) == (found.shape, found.about) == ((1, 8, 8, 1), found.about)
    np.testing.assert_array_equal(sx.compressed(again.apply)(again.params, x), judged(x))


def test_methods_that_look_at_data_get_training_images(saved, tmp_path):
    """Wanda keeps the largest of |w| times the norm of the input, here of the first 8 training images."""
    line = ["--prune", "wanda", "--allocation", "uniform", "--sparsity", "0.5", "--data", "digits", "--examples", "8"]
    assert cli.main(["compress", saved[0], str(tmp_path / "out"), *SHAPE, *line]) == 0
    images = data.digits("train").x[:8].reshape(8, 64)
    scores = np.abs(np.asarray(saved[1]["first"])) * np.linalg.norm(images, axis=0)[:, None]
    kept = np.asarray(sx.dense(sx.restore(tmp_path / "out")["first"])) != 0
    assert scores[kept].min() >= scores[~kept].max()
    options = sx.checkpoint.extra(tmp_path / "out")["spartax"]["options"]
    assert (options["calibration"], options["calibration_images"]) == ("digits", 8)


def test_what_is_done_is_noted_after_what_was_done_before(saved, tmp_path):
    steps = ["--quantize", "integer", "--bits", "4", "--seed", "2"]
    for source, out, do in (
        (saved[0], "a", ["--factorize", "svd", "--bytes", "0.5"]),
        (str(tmp_path / "a"), "b", steps),
    ):
        assert cli.main(["compress", source, str(tmp_path / out), *SHAPE, *do]) == 0
    about = sx.checkpoint.extra(tmp_path / "b")["spartax"]
    assert about["steps"] == ["svd, 50% of bytes", "integer, 4 bits"]
    told = {"factorize": "svd", "bytes": 0.5, "quantize": "integer", "bits": 4}
    assert about["options"] == {**told, "compress_seed": 2, "method": "svd + integer"}
    assert about["model"] == f"{tmp_path.name}/net"
    sx.save(tmp_path / "c", saved[1], extra={"spartax": {"other": 1}})
    assert cli.main(["inspect", str(tmp_path / "c")]) == 2


def test_an_architecture_is_taken_from_the_parent(known, attacked, tmp_path, capsys):
    sx.save(tmp_path / "bare", models.load(known).variables)
    line = ["attack", str(tmp_path / "bare"), "--eps", "0.1", "--examples", "4"]
    assert cli.main(line) == 2
    assert "--apply module:function is needed, or --parent CKPT" in capsys.readouterr().err
    assert cli.main([*line, "--parent", known]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["model"], record["options"]["routes"]) == ("weights/net", ["dense parent"])


def test_networks_of_one_name_in_two_folders_are_two_rows(saved, attacked, tmp_path, capsys):
    out = tmp_path / "rows" / "a.jsonl"
    noted = {"spartax": {"steps": ["random, 50%"], "options": {"prune": "random"}}}
    for place, extra in (("a", {}), ("b", {}), ("c", noted)):
        sx.save(tmp_path / place / "net", saved[1], extra=extra)
        line = ["--eps", "0.1", "--examples", "4", "--out", str(out)]
        assert cli.main(["attack", str(tmp_path / place / "net"), *SHAPE, *line]) == 0
    found = [(row.name, row.records[0].role) for row in report.rows(measure.read(out))]
    assert found == [("a/net", "dense"), ("b/net", "dense"), ("random, 50%", "baseline")]


def test_a_place_that_takes_no_line_is_said_before_the_attack(saved, attacked, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    line = ["attack", saved[0], *SHAPE, "--eps", "0.1", "--examples", "4", "--out"]
    assert cli.main([*line, str(tmp_path / "file" / "a.jsonl")]) == 2
    assert "a.jsonl cannot be written to (File exists); nothing was attacked" in capsys.readouterr().err
    assert cli.main([*line, str(tmp_path)]) == 2
    assert "cannot be written to (Is a directory)" in capsys.readouterr().err
    assert attacked == []


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_line_that_the_file_does_not_take_was_printed(saved, attacked, tmp_path, capsys):
    out = tmp_path / "a.jsonl"
    out.symlink_to("/dev/full")
    assert cli.main(["attack", saved[0], *SHAPE, "--eps", "0.1", "--examples", "4", "--out", str(out)]) == 2
    printed, said = capsys.readouterr()
    assert json.loads(printed)["worst"] == 0.75
    assert "a.jsonl took no line (No space left on device); it is the one printed above" in said


def test_a_reader_of_the_output_that_has_gone_costs_no_line(saved, attacked, tmp_path, monkeypatch):
    class Gone(io.StringIO):
        def write(self, text):
            raise BrokenPipeError("Broken pipe")

    line = ["attack", saved[0], *SHAPE, "--eps", "0.1", "--examples", "4", "--out", str(tmp_path / "a.jsonl")]
    monkeypatch.setattr(sys, "stdout", Gone())
    assert cli.main(line) == 2
    assert len(measure.read(tmp_path / "a.jsonl")) == 1


@pytest.fixture
def normed(tmp_path):
    """Weights of a known architecture that has batch normalization, with statistics that are off."""
    module = models.ResNet((4,), (1,), 4, models.BasicBlock, mean=(0.0,), std=(1.0,))
    variables = jax.jit(module.init)(jax.random.key(0), np.zeros((1, 32, 32, 1), np.float32))
    variables = {**variables, "batch_stats": jax.tree.map(lambda x: x + 3, variables["batch_stats"])}
    models.save(tmp_path / "normed.safetensors", module, variables)
    return str(tmp_path / "normed.safetensors"), module


def test_batch_statistics_are_those_of_the_compressed_network(normed, tmp_path, capsys, monkeypatch):
    x = np.random.default_rng(0).random((8, 32, 32, 1), np.float32)
    images, asked = data.Dataset(x, np.arange(8, dtype=np.int32), "noise/train", 10, ()), []
    monkeypatch.setattr(run.data, "load", lambda *given: asked.append(given) or images)
    net, module = normed
    steps = ["--prune", "magnitude", "--sparsity", "0.7"]
    line = [*steps, "--data", "digits", "--examples", "8"]
    assert cli.main(["compress", net, str(tmp_path / "out"), *line]) == 0
    assert asked == [("digits", "train", None, 8)]
    assert "batch statistics: measured anew on 8 images of noise/train\n" in capsys.readouterr().out
    found = sx.dense(sx.restore(tmp_path / "out"))
    _, state = module.apply(found, x, train=True, mutable=["batch_stats"])
    for old, new in zip(jax.tree.leaves(found["batch_stats"]), jax.tree.leaves(state["batch_stats"])):
        np.testing.assert_allclose(new, old, rtol=1e-3, atol=1e-5)  # a mixture of a value with itself
    assert cli.main(["compress", net, str(tmp_path / "before"), *steps]) == 0
    assert "batch statistics: those of the network before; with --data" in capsys.readouterr().out
    before = sx.restore(tmp_path / "before")["batch_stats"]
    np.testing.assert_array_equal(before["bn1"]["mean"], np.full(4, 3.0))
    monkeypatch.setattr(sys.modules[__name__], "normed_apply", module.apply, raising=False)
    assert cli.main(["compress", net, str(tmp_path / "own"), *line, "--apply", f"{__name__}:normed_apply"]) == 0
    assert "those of the network before; --apply does not tell" in capsys.readouterr().out


def test_attack_reads_the_images_it_attacks_alone(saved, attacked, monkeypatch):
    load, asked = data.load, []
    monkeypatch.setattr(run.data, "load", lambda *given: asked.append(given) or load(*given))
    assert cli.main(["attack", saved[0], *SHAPE, "--eps", "0.1", "--examples", "4"]) == 0
    assert asked == [("digits", "test", None, 4)]
    np.testing.assert_array_equal(attacked[0][2], data.digits("test").x[:4])


def test_a_file_goes_into_a_folder_that_is_made(saved, tmp_path, capsys):
    out = tmp_path / "new" / "deep" / "small.safetensors"
    assert cli.main(["compress", saved[0], str(out), *SHAPE, "--prune", "magnitude", "--sparsity", "0.5"]) == 0
    assert zeros(export.read_safetensors(out)) == 740
    assert cli.main(["compress", saved[0], str(out / "x.safetensors"), *SHAPE, "--prune", "magnitude"]) == 2
    assert "small.safetensors/x.safetensors could not be written: File exists\n" in capsys.readouterr().err


def test_interrupted(saved, monkeypatch):
    monkeypatch.setattr(run.network, "read", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt()))
    assert cli.main(["inspect", saved[0]]) == 130


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--help"])
    assert "spartax compress net small" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["inspect", "compress", "attack", "report"])
def test_help_of_a_command_has_its_own_examples(command, capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main([command, "--help"])
    _, _, examples = capsys.readouterr().out.partition("examples:\n")
    assert set(re.findall(r"^  spartax (\w+)", examples, re.MULTILINE)) == {command}
