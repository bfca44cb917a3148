"""The study of quantization: its configs are valid; a network with rounded activations is attacked by all routes."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spartax as sx
from experiments import run, sweep
from experiments.common import configs, measuring, networks
from experiments.common.subject import Subject
from spartax import attacks, data, measure, train
from spartax.arrays import FakeInputs, FakeQuantized
from spartax.quantize.reste import power_at

STUDY = pathlib.Path(__file__).resolve().parents[2] / "experiments" / "quantization"


@pytest.fixture(scope="module")
def small():
    """Two layers on noise, whose second one meets what a ReLU lets through."""
    rng = np.random.default_rng(0)
    x, y = rng.random((256, 2, 2, 1), dtype=np.float32), rng.integers(0, 3, 256).astype(np.int32)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    variables = {"a": draw(4, 16), "b": draw(16, 3)}
    apply = lambda params, x: jax.nn.relu((x.reshape(len(x), -1) - 0.5) @ params["a"]) @ params["b"]  # noqa: E731
    images = data.Dataset(x, y, "noise", 3, ("a", "b", "c"))
    return Subject("two layers", apply, variables, images, 0.1, 16, images)


def test_one_run_goes_by_every_route(small, tmp_path, monkeypatch):
    taken = []
    robustness = measure.robustness

    def watched(*args, routes, **options):
        found = robustness(*args, routes=routes, **options)
        taken.append(found)
        return found

    monkeypatch.setattr(networks, "load", lambda values: small)
    few = lambda config, eps: {"FGSM": attacks.fgsm(eps), "Square-20": attacks.square(eps, queries=20)}  # noqa: E731
    monkeypatch.setattr(run, "judges", few)
    monkeypatch.setattr(measuring.measure, "robustness", watched)
    changes = ("--quick", "--config.bits=4", "--config.inputs=3", "--config.curve=()")
    assert run.main([f"--config={STUDY / 'activations.py'}", f"--config.out={tmp_path}", *changes]) == 0
    (found,), (line,) = taken, measure.read(tmp_path / "results.jsonl")
    assert list(found.routes) == ["own", "straight-through", "dense parent", "queries"]
    assert line.method == "W4A3, min_max"
    assert line.worst == found.worst.mean()
    assert line.masking == pytest.approx(found.routes["own"].mean() - line.worst)


def test_the_grid_holds_every_rounding_at_every_width(capsys, tmp_path):
    assert sweep.main([str(STUDY / "sweep.py"), "--dry-run", f"--config.out={tmp_path}"]) == 0
    printed = capsys.readouterr().out
    assert "51 runs: 0 finished, 51 to do" in printed
    names = ("W2, hqq", "W8, nearest", "W3, gptq", "W6, adaround", "W4A4, min_max", "binary, STE", "dense")
    for name in (*names, "mixed as W3, taylor, nearest", "mixed as W4, output_kl, hqq", "W4A8, pact, trained"):
        assert f"  {name}, seed 0" in printed


def test_a_wrong_rounding_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(networks, "load", lambda values: Subject("a", None, {"a": 1}, None, 0.1, 16))
    code = run.main([f"--config={STUDY / 'weights.py'}", f"--config.out={tmp_path}", "--config.rounding=best"])
    assert code == 2
    assert "--config.rounding must be one of" in capsys.readouterr().err
    assert configs.load(str(STUDY / "dense.py")).label == "dense"


def compressed(subject, file, **values):
    return run.compressed(configs.load(str(STUDY / file), [(n, str(v)) for n, v in values.items()]), subject)


def test_mixed_widths_take_the_bytes_of_one(small):
    """A layer that nobody listens to pays for the other; bytes of codes and scales by hand."""
    draw = lambda *shape: jnp.asarray(np.random.default_rng(1).normal(size=shape), jnp.float32)  # noqa: E731
    variables = {"heard": draw(4, 8), "deaf": draw(4, 40)}

    def apply(params, x):
        rows = x.reshape(len(x), -1)
        return rows @ params["heard"] + 0 * (rows @ params["deaf"])[:, :8]

    subject = small._replace(apply_fn=apply, variables=variables)
    mixed = compressed(subject, "mixed.py", bits=4, sensitivity="output_kl", calibration=64)
    assert {path: sx.nbytes(w) for path, w in mixed.items()} == {"heard": 32 + 8 * 4, "deaf": 160 // 4 + 40 * 4}
    assert sx.nbytes(mixed) < (32 + 160) // 2 + (8 + 40) * 4


def training(subject, **values):
    config = configs.load(str(STUDY / "trained.py"), [(n, str(v)) for n, v in values.items()])
    return config.module.training(config.values, subject)


def test_steps_begin_at_the_first_batch_for_every_channel(small):
    params = sx.compress(
        small.apply_fn, small.variables, training(small, bits=3, inputs=5), batches=[small.train.x[:64]]
    ).params
    for weight in params.values():
        assert (weight.weight.quantizer.bits, weight.quantizer.bits) == (3, 5)
        assert weight.weight.quantizer.scale.shape == (1, weight.shape[1])
        assert weight.quantizer.scale > 0
    assert [bool(params[path].quantizer.unsigned) for path in ("a", "b")] == [False, True]


def test_pact_leaves_images_alone_and_clips_half_of_what_it_meets(small):
    x = small.train.x[:64]
    params, _ = train.begin(training(small, learnt="pact"), small.apply_fn, small.variables, x, jax.random.key(0))
    assert [isinstance(params[path], FakeInputs) for path in ("a", "b")] == [False, True]
    largest = np.maximum((x.reshape(64, 4) - 0.5) @ np.asarray(small.variables["a"]), 0).max()
    np.testing.assert_allclose(params["b"].quantizer.alpha, largest / 2, rtol=1e-5)


def test_binary_weights_are_trained_on_the_schedule_of_their_power(small):
    """Two epochs of four steps: the power rises from one while the signs are trained, and Adam does not move it."""
    trained = compressed(small, "binary.py", tune_epochs=2)
    assert isinstance(trained["a"], FakeQuantized)
    np.testing.assert_allclose(trained["a"].quantizer.power / 2**16, power_at(7, 8, 3.0), rtol=1e-4)
    assert np.abs(trained["a"].weight - small.variables["a"]).max() > 1e-3


def test_one_copy_is_trained_once_and_read_at_every_width(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.random((128, 2, 2, 1), dtype=np.float32), rng.integers(0, 3, 128).astype(np.int32)
    variables = {"w": jnp.asarray(rng.normal(size=(4, 3)), jnp.float32)}
    apply = lambda params, x: x.reshape(len(x), -1) @ params["w"]  # noqa: E731
    images = data.Dataset(x, y, "noise", 3, ("a", "b", "c"))
    start, found = Subject("linear", apply, variables, images, 0.1, 16, images), {}
    for bits in (8, 2):
        changes = [("tune_epochs", "1"), ("bits", str(bits)), ("out", str(tmp_path))]
        found[bits] = run.compressed(configs.load(str(STUDY / "double_rounding.py"), changes), start)["w"]
    assert len(list((tmp_path / "networks").iterdir())) == 1
    np.testing.assert_array_equal(found[8].codes, found[2].codes)
    assert [int(w.bits[0, 0]) for w in found.values()] == [8, 2]
    assert np.abs(sx.dense(found[8]) - variables["w"]).max() > 1e-4
