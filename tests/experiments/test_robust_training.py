import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from experiments.robust_training import __main__ as study
from experiments.robust_training import options, recipes
from spartax import measure, models


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("robust")
    assert study.main(["--quick", "--loss", "clean", "--out", str(out)]) == 0
    return out


def test_a_run_leaves_weights_a_row_and_its_log(folder):
    name = "cifar10_linf8_resnet8_clean"
    loaded = models.load(folder / f"{name}.safetensors")
    assert loaded.info["training"] == "clean, Linf 8/255"
    (row,) = measure.read(folder / "networks.jsonl")
    assert row.method == row.model == name
    assert row.worst <= row.robust["PGD-20"] <= row.clean
    steps = [json.loads(line)["step"] for line in (folder / f"{name}.training.jsonl").read_text().splitlines()]
    assert steps[-1] == 2


def test_the_same_command_goes_on_from_the_end(folder):
    file = folder / "cifar10_linf8_resnet8_clean.safetensors"
    before = load_file(file)
    file.unlink()
    assert study.main(["--quick", "--loss", "clean", "--out", str(folder)]) == 0
    after = load_file(file)
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert len(measure.read(folder / "networks.jsonl")) == 1


def test_augmentation_draws_from_the_key():
    seen = []

    def loss(network, key, x, y):
        seen.append(np.asarray(x))
        return x.sum(), {}

    x = np.random.default_rng(0).random((4, 8, 8, 3), np.float32)
    for key in (0, 0, 1):
        recipes.augmented(loss)(None, jax.random.key(key), x, None)
    np.testing.assert_array_equal(seen[0], seen[1])
    assert not np.array_equal(seen[0], seen[2])


def test_the_rate_rises_and_falls():
    tx = recipes.optimizer(0.2, 10)
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
    [([], "--data-dir DIR is needed"), (["--quick", "--depth", "9"], "6 n + 2"), (["--quick", "--eps", "-1"], "--eps")],
)
def test_wrong_arguments_end_with_one_line(capsys, arguments, said):
    with pytest.raises(SystemExit) as ended:
        options.parse(arguments)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_a_folder_without_data_is_said(tmp_path, capsys):
    assert study.main(["--data-dir", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "data_dir has no prepared 'cifar10'" in capsys.readouterr().err
