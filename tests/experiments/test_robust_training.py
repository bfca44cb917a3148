"""Robust base networks: what a run leaves, that it goes on, and what is said about wrong arguments."""

import json
import pathlib

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from experiments import run
from experiments.common import configs
from experiments.robust_training import base, training
from spartax import measure, models

FILE = str(pathlib.Path(base.__file__))
NAME = "cifar10_linf8_resnet8_clean"
CLEAN = ["--quick", "--config.loss=clean"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of a network with one block in place of three: compiling is the time of this test."""
    out = tmp_path_factory.mktemp("robust")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "resnet_cifar", lambda depth, shortcut: models.ResNet((4,), (1,), 4))
        assert run.main([f"--config={FILE}", f"--config.out={out}", *CLEAN]) == 0
        yield out


def test_a_run_leaves_weights_a_row_and_its_log(folder):
    loaded = models.load(folder / f"{NAME}.safetensors")
    assert loaded.info["training"] == "clean, Linf 8/255"
    (row,) = measure.read(folder / "results.jsonl")
    assert row.method == row.model == NAME
    assert row.worst == row.robust["PGD-2"] <= row.clean
    assert (row.options["epochs"], row.options["batch"], row.threat["eps"]) == (1, 32, 8 / 255)
    steps = [json.loads(line)["step"] for line in (folder / f"{NAME}.training.jsonl").read_text().splitlines()]
    assert steps[-1] == 2


def test_the_same_command_goes_on_from_the_end(folder, monkeypatch):
    file = folder / f"{NAME}.safetensors"
    before = load_file(file)
    file.unlink()
    monkeypatch.setattr(training.train, "make_step", lambda *args: pytest.fail)  # no step is left to do
    config = configs.load(FILE, [("out", str(folder)), ("loss", "clean")], quick=True)
    base.subject(config.values)
    after = load_file(file)
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_another_seed_has_files_of_its_own_beside_those_of_the_first(folder, monkeypatch):
    """The second training has no checkpoint to go on from, and leaves what the first one wrote."""
    before = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    began = []

    def trained(config, name, module, images, where):
        began.append((config.seed, name, where))
        return images, models.load(folder / f"{NAME}.safetensors").variables

    monkeypatch.setattr(base, "trained", trained)
    monkeypatch.setattr(models, "resnet_cifar", lambda depth, shortcut: models.ResNet((4,), (1,), 4))
    config = configs.load(FILE, [("out", str(folder)), ("loss", "clean"), ("seed", "1")], quick=True)
    assert config.label == base.subject(config.values).name == f"{NAME}_seed1"
    assert began == [(1, f"{NAME}_seed1", folder)]
    after = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    assert after.pop(f"{NAME}_seed1.safetensors")
    (folder / f"{NAME}_seed1.safetensors").unlink()
    assert after == before


def test_single_step_training_watches_for_overfitting():
    """A network that decides by the first pixel: one step and many find the same."""
    config = configs.load(FILE, [("loss", "aaer")], quick=True).values
    held, seen = base.noise(config)
    apply = lambda bias, x: jax.nn.one_hot(0, 10) * (bias - x[:, :1, 0, 0])  # noqa: E731
    found = training.watched(config, apply, training.first(held, 8), training.first(seen, 8))(np.float32(2))
    assert list(found) == ["score", "one_step", "many_steps", "gap", "alarm"]
    assert found["score"] == np.mean(held.y[:8] == 0)
    assert (found["one_step"], found["alarm"]) == (np.mean(seen.y[:8] == 0), False)
    config.loss = "pgd7"
    assert list(training.watched(config, apply, held, seen)(np.float32(2))) == ["score"]


def test_augmentation_draws_from_the_key():
    seen = []

    def loss(network, key, x, y):
        seen.append(np.asarray(x))
        return x.sum(), {}

    x = np.random.default_rng(0).random((4, 8, 8, 3), np.float32)
    for key in (0, 0, 1):
        training.augmented(loss)(None, jax.random.key(key), x, None)
    np.testing.assert_array_equal(seen[0], seen[1])
    assert not np.array_equal(seen[0], seen[2])


def test_the_rate_rises_and_falls():
    tx = training.optimizer(0.2, 10)
    state, sizes = tx.init(np.zeros(1, np.float32)), []
    for _ in range(10):
        change, state = tx.update(np.ones(1, np.float32), state, np.zeros(1, np.float32))
        sizes.append(abs(float(change[0])))
    rates = [0.2 * t / 3 for t in range(3)] + [0.2 * (1 - t / 7) for t in range(7)]
    trace, expected = 0.0, []
    for rate in rates:
        trace = 1 + 0.9 * trace
        expected.append(rate * (1 + 0.9 * trace))
    np.testing.assert_allclose(sizes, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--config.data_dir=DIR is needed"),
        (["--quick", "--config.network=resnet9"], "--config.network must be one of 'resnet8', 'resnet14'"),
        (["--quick", "--config.eps=-1/255"], "--config.eps must be in [0.0, 1.0]; got -0.0039"),
        (["--quick", "--config.batch=0"], "--config.batch must be an integer of at least 1; got 0"),
        (["--quick", "--config.loss=pgd8"], "Did you mean 'pgd7'?"),
        (["--config.data_dir=HERE"], "data_dir has no prepared 'cifar10'"),
    ],
)
def test_wrong_arguments_end_with_one_line(tmp_path, capsys, arguments, said):
    given = [argument.replace("HERE", str(tmp_path)) for argument in arguments]
    assert run.main([f"--config={FILE}", f"--config.out={tmp_path / 'out'}", *given]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
