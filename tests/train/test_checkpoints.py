"""Training that is interrupted ends with the bits of training that is not."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import jax
import numpy as np
import optax
import pytest
from jax.experimental import multihost_utils

from spartax import checkpoint, train
from spartax.train.checkpoints import fingerprint, resume, save
from tests.train import run as this

ROOT = pathlib.Path(__file__).parents[2]


class InterruptedHere(Exception):
    pass


def stop(at):
    def die(step):
        if step == at:
            raise InterruptedHere

    return die


def interrupted(folder, at, **options):
    with pytest.raises(InterruptedHere):
        this.run(folder, die=stop(at), **options)


@pytest.fixture(scope="module")
def whole():
    return this.run()


def assert_same(ended, whole):
    """Every bit of the state, and every loss."""
    (state, losses), (expected, all_losses) = ended, whole
    np.testing.assert_array_equal(losses, all_losses)
    assert jax.tree.structure(state) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(expected), strict=True):
        assert np.asarray(a).dtype == np.asarray(b).dtype
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_a_run_that_was_killed_ends_with_the_same_bits(whole, tmp_path):
    at = 33
    paths = f"{ROOT / 'compression'}{os.pathsep}{ROOT}"
    env = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run([sys.executable, "-m", "tests.train.run", str(tmp_path / "run"), str(at)], env=env, cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    assert len(checkpoint.restore(tmp_path / "run")["losses"]) == 30
    assert_same(this.run(tmp_path / "run"), whole)


def test_everything_moves_in_that_run(whole):
    state, losses = whole
    first = this.start()
    assert losses.shape == (this.STEPS,)
    assert np.any(np.asarray(state.variables["first"].mask) != first.variables["first"].mask)
    assert np.any(np.asarray(train.averaged(state)["bias"]) != state.variables["bias"])
    assert 0 < state.best.step < this.STEPS
    assert state.method.info["first"]


@pytest.mark.parametrize("at", [1, 21, 43])  # before the first checkpoint; at a refresh; after the last refresh
def test_a_run_that_was_interrupted_twice(whole, tmp_path, at):
    interrupted(tmp_path, at)
    interrupted(tmp_path, at + 4)
    assert_same(this.run(tmp_path), whole)
    assert_same(this.run(tmp_path, die=lambda step: pytest.fail("nothing is left to do")), whole)


def test_only_what_was_not_saved_is_done_again(whole, tmp_path):
    interrupted(tmp_path, 23)
    steps = []
    assert_same(this.run(tmp_path, die=steps.append), whole)
    assert steps == list(range(20, this.STEPS))


def test_a_run_that_is_shorter_than_its_checkpoint_is_refused(tmp_path):
    interrupted(tmp_path, 21)
    keep, options = train.checkpoints(tmp_path, every=5, config={"lr": 1e-2}), {"progress": False}
    options["validate"] = train.validation(this.score, every=6, weights=train.averaged)
    batches = [(this.images().x[:5], this.images().y[:5])] * 8
    for given in (batches, iter(batches)):
        with pytest.raises(ValueError, match="of which the checkpoint has seen 20; got 8"):
            train.fit(this.STEP, this.start(), given, this.KEY, keep=keep, **options)


def test_a_full_disk_says_so_and_loses_nothing(whole, tmp_path, monkeypatch):
    written = []

    def fills_up(folder, arrays):
        written.append(folder)
        folder.mkdir()
        (folder / "half").write_bytes(b"0")
        if len(written) > 2:
            raise OSError(28, "No space left on device")
        return store(folder, arrays)

    def store(folder, arrays):
        (folder / "half").unlink()
        folder.rmdir()
        return real(folder, arrays)

    real = checkpoint._write_arrays
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_write_arrays", fills_up)
        with pytest.raises(
            OSError, match=r"could not be written, what it held before is unchanged: .*No space left"
        ) as caught:
            this.run(tmp_path)
    np.testing.assert_array_equal(caught.value.losses, whole[1][:15])
    assert int(caught.value.state.step) == 15
    assert np.isfinite(caught.value.state.variables["bias"]).all()  # its memory was not given away
    assert not written[-1].exists()
    assert len(checkpoint.restore(tmp_path)["losses"]) == 10
    assert_same(this.run(tmp_path), whole)


@pytest.mark.parametrize(("process", "said"), [(0, "No space left"), (1, "could not be written by process 0")])
def test_a_full_disk_stops_every_process(process, said, tmp_path, monkeypatch):
    """Two processes exchange whether the first one could write; each of them played here, with the same exchange."""
    exchanged = []

    def allgather(x):
        exchanged.append(bool(x))
        return np.array([True, False])

    def full(*given, **more):
        raise OSError(28, "No space left on device")

    state, keep = this.start(), train.checkpoints(tmp_path, every=5, config={})
    mark = fingerprint(keep, state, this.KEY)
    monkeypatch.setattr(checkpoint, "save", full)
    monkeypatch.setattr(multihost_utils, "process_allgather", allgather)
    monkeypatch.setattr(jax, "process_index", lambda: process)
    with pytest.raises(OSError, match=said):
        save(keep, mark, state, [1.5])
    assert exchanged == [process == 0]


@pytest.mark.parametrize("every", [4, 5])  # the last checkpoint on the way is that of the last step, or of one before
def test_the_look_at_the_end_is_in_the_last_checkpoint(every, tmp_path):
    def ended(folder, score):
        keep = folder and train.checkpoints(folder, every=every, config={})
        batches = [(this.images().x[:5], this.images().y[:5])] * 8
        options = {"validate": train.validation(score, every=3), "keep": keep, "progress": False}
        return train.fit(this.STEP, this.start(), batches, this.KEY, **options)

    def stops(variables):
        seen.append(1)
        if len(seen) == 3:
            raise InterruptedHere
        return this.score(variables)

    seen, at_once = [], ended(None, this.score)
    with pytest.raises(InterruptedHere):
        ended(tmp_path, stops)
    assert_same(ended(tmp_path, this.score), at_once)
    assert_same(ended(tmp_path, lambda variables: pytest.fail("nothing is left to look at")), at_once)


def test_a_checkpoint_of_another_method_is_refused(tmp_path):
    interrupted(tmp_path, 6)
    state = this.start()
    fewer = {"first": state.method.layouts["first"]}
    for other in ({"layouts": fewer}, {"state": {"first": 35, "second": 18}}, {"state": {"first": np.ones(2)}}):
        with pytest.raises(ValueError, match="another run: the compression in training works on other weights or"):
            this.run(tmp_path, state=state._replace(method=state.method._replace(**other)))
    spec = json.loads((tmp_path / "spec.json").read_text())
    del spec["extra"]["fingerprint"]["method"]  # as those of before
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    steps = []
    this.run(tmp_path, die=steps.append)
    assert steps[0] == 5


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    interrupted(tmp_path, 6, config={"lr": 1e-2, "eps": 0.1})
    with pytest.raises(ValueError, match=r"another run: config\['eps'\] was 0.1 and is 0.2\. Name another folder"):
        this.run(tmp_path, config={"lr": 1e-2, "eps": 0.2})
    same = {"lr": 1e-2, "eps": 0.1}
    with pytest.raises(ValueError, match="another run: the weights that training starts from differ"):
        this.run(tmp_path, config=same, state=this.start(seed=1))
    with pytest.raises(ValueError, match="optimizer state have another structure; the weights"):
        this.run(tmp_path, config=same, state=this.start(tx=optax.chain(optax.sgd(1e-2), train.ema())))
    args = (this.STEP, this.start(), [], jax.random.key(1))
    with pytest.raises(ValueError, match="another run: the key differs"):
        train.fit(*args, keep=train.checkpoints(tmp_path, every=5, config=same), progress=False)
    with pytest.raises(ValueError, match="was saved with validate"):
        train.fit(*args[:3], this.KEY, keep=train.checkpoints(tmp_path, every=5, config=same), progress=False)


def test_a_checkpoint_of_a_newer_format_is_refused(tmp_path):
    interrupted(tmp_path, 6)
    file = tmp_path / "spec.json"
    spec = json.loads(file.read_text())
    spec["extra"]["training"] = 2
    file.write_text(json.dumps(spec))
    with pytest.raises(ValueError, match="has training format 2; this version reads 1"):
        this.run(tmp_path)
    assert json.loads(file.read_text()) == spec


def test_what_cannot_be_saved_is_refused_before_the_first_step(tmp_path):
    state = this.start()
    state = state._replace(method=state.method._replace(state={"drawn": jax.random.key(0)}))
    with pytest.raises(ValueError, match=r"state.method/0/drawn has dtype key<fry>, which cannot be saved"):
        this.run(tmp_path, state=state, die=lambda step: pytest.fail("a step was taken"))


def test_bad_options_are_refused(tmp_path):
    with pytest.raises(ValueError, match="every must be an integer of at least 1; got 0"):
        train.checkpoints(tmp_path, every=0, config={})
    with pytest.raises(ValueError, match="config must hold JSON values only"):
        train.checkpoints(tmp_path, every=1, config={"lr": np.float32(1)})


def test_keys_and_devices_are_those_of_the_given_state(tmp_path):
    """Typed keys in the state of an optimizer, and arrays that were placed, come back as such."""
    tx = optax.chain(optax.add_noise(0.1, 0.5, jax.random.key(3)), optax.sgd(0.1))
    device = jax.devices()[0]
    state = train.init_state(jax.device_put({"w": np.ones(3, np.float32)}, device), tx)
    keep = train.checkpoints(tmp_path, every=1, config={})
    mark = fingerprint(keep, state, this.KEY)
    save(keep, mark, state, [1.5])
    new, losses = resume(keep, mark, state)
    assert losses == [1.5]
    for a, b in zip(jax.tree.leaves(new), jax.tree.leaves(state), strict=True):
        assert (a.dtype, a.committed, a.sharding) == (b.dtype, b.committed, b.sharding)
        plain = [jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x for x in (a, b)]
        np.testing.assert_array_equal(*plain)
