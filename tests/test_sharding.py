"""On eight devices everything gives what it gives on one."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spartax as sx
from spartax import prune, quantize, sharding, train
from tests.sharded import APPLY, ATTACKED, GRIDS, attacked, dense_params, everything, examples, run, start, trained

pytestmark = pytest.mark.core
ROOT = pathlib.Path(__file__).resolve().parents[1]


def spec(x):
    return tuple(x.sharding.spec)


def close(a, b, tolerance=1e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), a, b)


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_mesh_takes_all_devices_or_says_why_not():
    assert dict(sharding.mesh().shape) == {"data": 8, "model": 1}
    assert dict(sharding.mesh(model=4).shape) == {"data": 2, "model": 4}
    assert sharding.mesh(2, devices=jax.devices()[3:5]).devices.ravel().tolist() == jax.devices()[3:5]
    for asked, told in (
        ({"model": 3}, "mesh of 3 columns; there are 8 devices"),
        ({"data": 2}, r"2 x 1 = 2 devices; there are 8 devices"),
        ({"data": 4, "model": 4}, r"4 x 4 = 16 devices; there are 8"),
        ({"model": 0}, "model must be an integer of at least 1; got 0"),
        ({"model": 16}, "data must be an integer of at least 1; got 0"),
    ):
        with pytest.raises(ValueError, match=told):
            sharding.mesh(**asked)


def test_large_arrays_are_split_along_the_longest_axis_that_divides():
    mesh = sharding.mesh(2, 4)
    sizes = {"wide": (6, 20), "tall": (20, 8), "square": (8, 8), "odd": (30, 8), "prime": (31, 5), "small": (4, 4)}
    tree = {name: jnp.zeros(size) for name, size in sizes.items()} | {"note": "text", "none": None, "number": 3}
    split = sharding.shard_params(tree, mesh, min_size=64)
    assert {name: spec(split[name]) for name in sizes} == {
        "wide": (None, "model"),
        "tall": ("model", None),
        "square": ("model", None),
        "odd": (None, "model"),
        "prime": (),
        "small": (),
    }
    assert (split["note"], split["none"], split["number"]) == ("text", None, 3)
    assert split["wide"].addressable_shards[0].data.shape == (6, 5)
    with pytest.raises(ValueError, match="over must be one of 'data', 'model'; got 'modle'"):
        sharding.shard_params(tree, mesh, over="modle")


def test_masks_and_codes_are_split_and_compute_the_same():
    x, mesh = examples().x[:8], sharding.mesh(2, 4)
    eight_bits = quantize.quantize(quantize.integer(bits=8), quantize.absmax(), quantize.nearest())
    for transform, where in ((prune.prune(prune.magnitude(), 0.5), (None, "model")), (eight_bits, ("model", None))):
        one = sx.compress(APPLY, dense_params(), transform, batches=[x]).params
        eight = sharding.shard_params(one, mesh, min_size=64)
        split = [a for a in jax.tree.leaves(eight["first"]) if a.size == 16 * 32]
        assert {spec(a) for a in split} == {where}  # codes are stored as [out, in]
        close(APPLY(one, x), APPLY(eight, sharding.shard_batch(x, mesh)))


def test_a_batch_that_does_not_divide_is_refused():
    mesh = sharding.mesh(4, 2)
    x = sharding.shard_batch({"x": np.zeros((12, 3)), "y": np.arange(12)}, mesh)
    assert spec(x["x"]) == spec(x["y"]) == ("data",)
    assert [s.data.tolist() for s in x["y"].addressable_shards][::2] == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]
    with pytest.raises(ValueError, match=r"multiple of 4; got an array of shape \(10, 3\)"):
        sharding.shard_batch(np.zeros((10, 3)), mesh)
    with pytest.raises(ValueError, match=r"multiple of 4; got an array of shape \(\)"):
        sharding.shard_batch((np.zeros((8, 3)), np.float32(1)), mesh)


RUNS = [(False, grid) for grid in GRIDS] + [(True, "both"), (True, "fully sharded")]


@pytest.mark.parametrize(("masked", "grid"), [*RUNS, pytest.param(True, "data", marks=pytest.mark.nightly)])
def test_training_gives_the_weights_of_one_device(masked, grid):
    (one, losses, _), (eight, losses_8, traces) = trained(masked), trained(masked, grid)
    close(losses, losses_8)
    close(one.trainable, eight.trainable)
    close(one.opt_state, eight.opt_state)
    equal(one.fixed, eight.fixed)
    where = {"data": (), "both": (None, "model"), "fully sharded": (None, "data")}[grid]
    first = eight.trainable["first"].weight if masked else eight.trainable["first"]
    moments = eight.opt_state[0].mu["first"].weight if masked else eight.opt_state[0].mu["first"]
    for x in (first, moments, *([eight.fixed["first"].mask] if masked else [])):
        assert x.sharding.is_equivalent_to(jax.sharding.NamedSharding(x.sharding.mesh, jax.P(*where)), 2)
    assert traces == 1


@pytest.mark.parametrize("loss", ATTACKED)
def test_attacks_and_batch_statistics_in_training_are_those_of_one_device(loss):
    (one, losses), (eight, losses_8) = attacked(loss), attacked(loss, "data")
    close(losses, losses_8)
    close(one.variables, eight.variables)
    moved = one.variables["batch_stats"]["BatchNorm_0"]["mean"]
    assert np.abs(moved).max() > 0.01


@pytest.mark.parametrize("masked", ["dense", pytest.param("masked", marks=pytest.mark.nightly)])
def test_two_processes_give_the_weights_of_one(masked, tmp_path):
    """Four devices each; both end with everything, so each proves it. Interrupted, they end with the same bits, which
    one process reads from their checkpoint."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    flags = os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=4")
    env = {**os.environ, "XLA_FLAGS": flags, "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo"}
    env["PYTHONPATH"] = f"{ROOT / 'compression'}{os.pathsep}{ROOT}"
    command, folder = [sys.executable, "-m", "tests.sharded", port], tmp_path / "run"
    calls = [[*command, str(number), masked, str(tmp_path / str(number)), str(folder)] for number in range(2)]
    started = [subprocess.Popen(call, env=env, cwd=ROOT, stderr=subprocess.PIPE, text=True) for call in calls]
    try:
        said = [process.communicate(timeout=120)[1] for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    assert [process.returncode for process in started] == [0, 0], said
    lines = [json.loads(line)["step"] for line in (tmp_path / "run.jsonl").read_text().splitlines()]
    assert lines == [4, 6]  # the first process writes them, the other one nothing
    state, losses, _ = trained(masked == "masked")
    leaves = jax.tree.leaves(everything(state))
    keep = train.checkpoints(folder, every=2, config={})
    nothing_left = lambda *given: pytest.fail("all six steps are in the checkpoint")  # noqa: E731
    read, read_losses = run(nothing_left, start(masked == "masked"), None, masked == "masked", keep=keep)
    for number in range(2):
        at_once, again = (np.load(tmp_path / f"{number}.{name}.npz") for name in ("at once", "again"))
        assert at_once["devices"] == 4
        close(at_once["losses"], losses)
        close([at_once[f"arr_{index}"] for index in range(len(leaves))], leaves)
        equal(dict(again), dict(at_once))
        equal([at_once[f"arr_{index}"] for index in range(len(leaves))], jax.tree.leaves(everything(read)))
        equal(at_once["losses"], read_losses)
