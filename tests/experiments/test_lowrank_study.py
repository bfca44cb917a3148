"""The study of low rank: its configs are valid, trained ranks are factorized afterwards, and runs without attacks."""

import pathlib

import jax
import numpy as np
import pytest

import spartax as sx
from experiments import run, sweep
from experiments.common import measuring, networks
from experiments.common.subject import Subject
from spartax import data, lowrank, measure

STUDY = pathlib.Path(__file__).resolve().parents[2] / "experiments" / "lowrank"
X, Y = np.random.default_rng(0).random((64, 4, 4, 1), np.float32), np.random.default_rng(1).integers(0, 3, 64)


def network(params, x):
    return jax.nn.relu(x.reshape(len(x), -1) @ params["first"]["kernel"]) @ params["last"]["kernel"]


@pytest.fixture(scope="module")
def subject():
    """Two layers of which 2:4 takes both."""
    draw = np.random.default_rng(2).normal
    weights = {"first": {"kernel": draw(size=(16, 24))}, "last": {"kernel": draw(size=(24, 12))}}
    images = data.Dataset(X, Y.astype(np.int32), "noise", 12, tuple("abcdefghijkl"))
    variables = jax.tree.map(lambda w: w.astype(np.float32), weights)
    return Subject("small", network, variables, images, 0.1, 255, images)


def line(subject, monkeypatch, tmp_path, file, *changes):
    """The record of one run on this network."""
    monkeypatch.setattr(networks, "load", lambda values: subject._replace(eps=values.eps))
    changes = [*changes, "calibration=64", f"out={tmp_path}"]
    assert run.main([f"--config={STUDY / file}.py", "--quick", *(f"--config.{change}" for change in changes)]) == 0
    return measure.read(tmp_path / "results.jsonl")[-1]


def test_without_attacks_a_run_tells_clean_accuracy_alone(subject, monkeypatch, tmp_path):
    monkeypatch.setattr(measuring.measure, "robustness", None)  # not called
    changes = ("eps=0", "ratio=1/2", "factorization=svd")
    record = line(subject, monkeypatch, tmp_path, "factorized", *changes)
    method = lowrank.factorize(lowrank.svd(), lowrank.sensitivity(0.5))
    expected = sx.compress(network, subject.variables, method, batches=[X])
    assert record.clean == np.mean(np.argmax(expected.apply(expected.params, X), axis=1) == Y)
    assert (record.worst, record.robust, record.curve) == (None, {}, None)
    assert record.bytes_packed == sx.nbytes(expected.params) <= 0.5 * sx.nbytes(subject.variables)


def test_trained_ranks_are_factorized_where_training_ended(subject, monkeypatch, tmp_path):
    """Training that truncates to rank 2 loses nothing at a budget that holds it; the dense weights would."""

    def of_rank_two(weight):
        u, s, v = np.linalg.svd(weight, full_matrices=False)
        return (u[:, :2] * s[:2] @ v[:2]).astype(np.float32)

    low, seen = jax.tree.map(of_rank_two, subject.variables), []

    def trained(apply_fn, variables, *rest, transform, **options):
        seen.append(transform)
        return low

    monkeypatch.setattr("experiments.common.subject.adversarially_trained", trained)
    record = line(subject, monkeypatch, tmp_path, "trained", "eps=0", "ratio=1/3", "every=5")
    assert [seen[0].due(step) for step in (0, 4, 5)] == [True, False, True]
    assert record.clean == np.mean(np.argmax(network(low, X), axis=1) == Y)
    assert record.bytes_packed <= sx.nbytes(subject.variables) / 3


def test_corrections_add_factors_to_what_they_correct(subject, monkeypatch, tmp_path):
    sizes = {}
    for correction in ("none", "eora"):
        changes = ("start=2:4", f"correction={correction}", "rank=2", "eps=0")
        record = line(subject, monkeypatch, tmp_path, "corrected", *changes)
        sizes[record.method] = record.bytes_packed
    assert sizes["2:4 + eora 2"] - sizes["2:4"] == 4 * 2 * (40 + 36)


def test_the_grid_holds_every_method_at_every_budget(capsys, tmp_path):
    assert sweep.main([str(STUDY / "sweep.py"), "--dry-run", f"--config.out={tmp_path}"]) == 0
    printed = capsys.readouterr().out
    assert "52 runs: 0 finished, 52 to do" in printed
    names = ("dense", "whitened, sensitivity, 1/6", "tucker, shared_energy, 1/3", "svd, sensitivity, 1/2, tuned")
    for name in (*names, "trained rank 0.9, sensitivity, 1/4", "2:4 + eora 8", "int4"):
        assert f"  {name}, seed 0" in printed


@pytest.mark.parametrize(
    ("file", "change"),
    [("factorized", "factorization=best"), ("factorized", "ranks=all"), ("corrected", "start=int1")],
)
def test_a_wrong_name_is_named(subject, monkeypatch, tmp_path, capsys, file, change):
    monkeypatch.setattr(networks, "load", lambda values: subject)
    assert run.main([f"--config={STUDY / file}.py", f"--config.out={tmp_path}", f"--config.{change}"]) == 2
    assert f"--config.{change.split('=')[0]} must be one of" in capsys.readouterr().err
