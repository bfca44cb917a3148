"""The study of quantization: its configs are valid; a network with rounded activations is attacked by all routes."""

import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from experiments import run, sweep
from experiments.common import configs, measuring, networks
from experiments.common.subject import Subject
from spartax import data, measure
from spartax.arrays import FakeQuantized
from spartax.quantize.reste import power_at

STUDY = pathlib.Path(__file__).resolve().parents[2] / "experiments" / "quantization"
TINY = ["--quick", "--config.examples=32", "--config.epochs=1", "--config.queries=5", "--config.curve=()"]


def test_one_run_goes_by_every_route(tmp_path, monkeypatch):
    taken = []
    robustness = measure.robustness

    def watched(*args, routes, **options):
        found = robustness(*args, routes=routes, **options)
        taken.append(found)
        return found

    as_it_began = lambda apply_fn, start, *rest, **options: start  # noqa: E731
    monkeypatch.setattr(networks, "adversarially_trained", as_it_began)
    monkeypatch.setattr(measuring.measure, "robustness", watched)
    file = f"--config={STUDY / 'activations.py'}"
    assert run.main([file, f"--config.out={tmp_path}", "--config.bits=4", "--config.inputs=3", *TINY]) == 0
    (found,), (line,) = taken, measure.read(tmp_path / "results.jsonl")
    assert list(found.routes) == ["own", "straight-through", "dense parent", "queries"]
    assert line.method == "W4A3, min_max"
    assert line.worst == found.worst.mean()
    assert line.masking == pytest.approx(found.routes["own"].mean() - line.worst)


def test_the_grid_holds_every_rounding_at_every_width(capsys, tmp_path):
    assert sweep.main([str(STUDY / "sweep.py"), "--dry-run", f"--config.out={tmp_path}"]) == 0
    printed = capsys.readouterr().out
    assert "29 runs: 0 finished, 29 to do" in printed
    for name in ("W2, hqq", "W8, nearest", "W3, gptq", "W6, adaround", "W4A4, min_max", "binary, STE", "dense"):
        assert f"  {name}, seed 0" in printed


def test_a_wrong_rounding_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(networks, "load", lambda values: Subject("a", None, {"a": 1}, None, 0.1, 16))
    code = run.main([f"--config={STUDY / 'weights.py'}", f"--config.out={tmp_path}", "--config.rounding=best"])
    assert code == 2
    assert "--config.rounding must be one of" in capsys.readouterr().err
    assert configs.load(str(STUDY / "dense.py")).label == "dense"


def test_binary_weights_are_trained_on_the_schedule_of_their_power():
    """Two epochs of four steps: the power rises from one while the signs are trained, and Adam does not move it."""
    rng = np.random.default_rng(0)
    x, y = rng.random((256, 2, 2, 1), dtype=np.float32), rng.integers(0, 3, 256).astype(np.int32)
    variables = {"w": jnp.asarray(rng.normal(size=(4, 3)), jnp.float32)}
    apply = lambda params, x: x.reshape(len(x), -1) @ params["w"]  # noqa: E731
    images = data.Dataset(x, y, "noise", 3, ("a", "b", "c"))
    start = Subject("linear", apply, variables, images, 0.1, 16, images)
    config = configs.load(str(STUDY / "binary.py"), [("tune_epochs", "2")])
    trained = run.compressed(config, start)
    assert isinstance(trained["w"], FakeQuantized)
    np.testing.assert_allclose(trained["w"].quantizer.power / 2**16, power_at(7, 8, 3.0), rtol=1e-4)
    assert np.abs(trained["w"].weight - variables["w"]).max() > 1e-3
