import json
import struct

import numpy as np
import optax
import pytest

from spartax import train
from spartax.train import events
from tests.train import run as this
from tests.train.test_checkpoints import interrupted


def without_rates(path):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "images_per_second"} for line in lines]


def test_lines_of_a_run_that_was_interrupted_are_those_of_one_that_was_not(tmp_path):
    losses = this.run(logs=[train.json_lines(tmp_path / "logs" / "whole.jsonl")])[1]
    file = tmp_path / "parts.jsonl"
    interrupted(tmp_path / "run", 23, logs=[train.json_lines(file)])
    assert without_rates(file)[-1]["step"] == 20
    with file.open("a") as out:
        out.write('{"step": 24, "score": 1.0}\n{"step": 30, "los')  # written after the checkpoint; half a line
    this.run(tmp_path / "run", logs=[train.json_lines(file)])
    found = without_rates(tmp_path / "logs" / "whole.jsonl")
    assert without_rates(file) == found
    assert [line["step"] for line in found if "loss" in line] == [10, 20, 30, 40, 48]
    assert [line["step"] for line in found if "score" in line] == list(range(6, 49, 6))
    assert found[0] == {"step": 6, "score": found[0]["score"]}
    means = [line["loss"] for line in found if "loss" in line]
    assert means == pytest.approx([losses[i : i + 10].mean() for i in range(0, 48, 10)], rel=1e-6)


def lines_of(steps, logs):
    """A run whose loss and score tell more than their value."""

    def loss(network, key, x, y):
        return network.variables["w"], {"log": {"mean": x.mean()}}

    tx = optax.sgd(0.5)
    batches = [(np.full((2, 3), number / 16, np.float32), np.zeros(2, np.int32)) for number in range(steps)]
    score = lambda variables: {"score": -float(variables["w"]), "alarm": True}  # noqa: E731
    step, state = train.make_step(loss, tx, lambda params, x: x), train.init_state({"w": np.float32(1)}, tx)
    options = {"validate": train.validation(score, every=7), "logs": logs, "progress": False}
    return train.fit(step, state, batches, this.KEY, **options)[0]


def test_what_loss_and_score_tell_is_written(tmp_path):
    state = lines_of(11, [train.json_lines(tmp_path / "log.jsonl")])
    found = without_rates(tmp_path / "log.jsonl")
    assert found == [
        {"step": 7, "score": 2.5, "alarm": 1.0},
        {"step": 10, "loss": -1.25, "mean": 9 / 16},
        {"step": 11, "loss": -4.0, "mean": 10 / 16},
        {"step": 11, "score": 4.5, "alarm": 1.0},
    ]
    assert (state.best.step, state.log) == (11, None)


def test_a_log_whose_disk_is_full_is_left(tmp_path):
    def full(step, values):
        raise OSError(28, "No space left on device")

    broken = train.json_lines(tmp_path / "broken.jsonl")._replace(write=full)
    said = "the log .*broken.jsonl ends at step 7, training goes on without it: .*No space left"
    with pytest.warns(UserWarning, match=said) as warned:
        lines_of(11, [broken, train.json_lines(tmp_path / "whole.jsonl")])
    assert len(warned) == 1
    assert [line["step"] for line in without_rates(tmp_path / "whole.jsonl")] == [7, 10, 11, 11]


def test_numbers_that_are_not_finite_are_null(tmp_path):
    log = train.json_lines(tmp_path / "log.jsonl")
    log.write(5, {"score": 0.5, "gap": float("nan"), "most": float("inf")})
    assert (tmp_path / "log.jsonl").read_text() == '{"step": 5, "score": 0.5, "gap": null, "most": null}\n'


@pytest.mark.parametrize("name", ["step", "loss", "images_per_second"])
def test_names_of_the_loop_are_refused(name):
    tx, batch = optax.sgd(0.5), (np.ones((2, 3), np.float32), np.zeros(2, np.int32))
    plain = lambda network, key, x, y: (network.variables["w"], {})  # noqa: E731
    named = lambda network, key, x, y: (network.variables["w"], {"log": {name: x.mean()}})  # noqa: E731

    def run(loss, score):
        step, state = train.make_step(loss, tx, lambda params, x: x), train.init_state({"w": np.float32(1)}, tx)
        return train.fit(step, state, [batch], this.KEY, validate=train.validation(score, every=1), progress=False)

    with pytest.raises(ValueError, match=rf'updates\["log"\] of the loss must not use the names step.*; got {name!r}'):
        run(named, lambda variables: 1.0)
    with pytest.raises(ValueError, match=f"score must not use the names step.*; got {name!r}"):
        run(plain, lambda variables: {"score": 1.0, name: 2.0})


def records(data):
    """The data of every record, after checking lengths and checksums."""
    found = []
    while data:
        (size,) = struct.unpack("<Q", data[:8])
        head, body = data[:12], data[12 : 12 + size]
        assert events._checksum(head[:8]) == head[8:]
        assert events._checksum(body) == data[12 + size : 16 + size]
        found.append(body)
        data = data[16 + size :]
    return found


def test_checksums_are_those_of_rfc_3720():
    """Section B.4: 32 bytes of zeros, of ones, and 0 to 31."""
    assert events.crc32c(bytes(32)) == 0x8A9136AA
    assert events.crc32c(b"\xff" * 32) == 0x62A8AB43
    assert events.crc32c(bytes(range(32))) == 0x46DD794E


def test_tensorboard_files_hold_the_scalars(tmp_path):
    """Fields by hand: wall time (1, double), step (2), version (3), summary (5), session (7)."""
    log = train.tensorboard(tmp_path / "board")
    log.begin(300)
    log.write(310, {"loss": 0.5, "score": -2.0})
    (file,) = (tmp_path / "board").glob("events.out.tfevents.*")
    version, start, scalars = records(file.read_bytes())
    assert version[9:] == b"\x10\x00" + b"\x1a\x0dbrain.Event:2"
    assert start[9:] == b"\x10\xad\x02" + b"\x3a\x02\x08\x01"  # step 301, SessionLog.START
    loss = b"\x0a\x04loss\x15" + struct.pack("<f", 0.5)
    score = b"\x0a\x05score\x15" + struct.pack("<f", -2.0)
    values = b"".join(b"\x0a" + bytes([len(v)]) + v for v in (loss, score))
    assert scalars[9:] == b"\x10\xb6\x02" + b"\x2a" + bytes([len(values)]) + values
    assert scalars[:1] == b"\x09"
    assert 1.7e9 < struct.unpack("<d", scalars[1:9])[0] < 5e9
