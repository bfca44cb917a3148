"""A model of click-through rates, 4 times smaller."""

import json

import jax
import numpy as np
import pytest

import spartax as sx
from experiments.lowrank import click_through
from experiments.lowrank.click_through import SMALL, Sizes, auc


@pytest.fixture(scope="module")
def model():
    """(examples to train on, examples to judge, trained params)."""
    known, test = click_through.problem(SMALL)
    return known, test, click_through.trained(click_through.initialized(SMALL), known, SMALL.steps)


def test_auc_counts_pairs():
    """Clicks at 3 and 1, none at 2, 1 and 0: above in 3 + 1 of 6 pairs, one tie; of probabilities, its expectation."""
    scores, clicks = np.array([3.0, 1.0, 2.0, 1.0, 0.0]), np.array([1.0, 1, 0, 0, 0])
    assert auc(scores, clicks) == pytest.approx(4.5 / 6)
    p = np.array([0.9, 0.2, 0.6])
    expected = sum(p[i] * (1 - p[j]) * (0.5 if i == j else p[i] > p[j]) for i in range(3) for j in range(3))
    assert auc(p, p) == pytest.approx(expected / (p.sum() * (1 - p).sum()))


def test_atomic_features_lose_less_auc_than_the_svd_at_the_same_bytes(model):
    known, test, dense = model
    apply = sx.compressed(click_through.predicted)
    judged = lambda params: auc(np.asarray(apply(params, test.x))[:, 0], test.probability)  # noqa: E731
    best, full = auc(test.probability, test.probability), judged(dense)
    assert best - 0.1 < full < best
    small = {name: click_through.compressed(dense, known, name, 1 / 3) for name in ("svd", "atomic features")}
    sizes = {sx.nbytes(params) for params in small.values()}
    assert len(sizes) == 1
    assert 3 * sizes.pop() < sx.nbytes(dense)
    assert isinstance(small["svd"]["fields"]["0"]["table"], sx.LowRank)
    assert judged(small["svd"]) + 0.005 < judged(small["atomic features"]) < full + 0.01


def test_rows_are_written_with_what_made_them(tmp_path, monkeypatch):
    monkeypatch.setattr(click_through, "rows", lambda sizes, ratios, steps: [{"method": "dense", "auc": 0.5}])
    assert click_through.main(["--small", f"--out={tmp_path / 'rows.json'}"]) == 0
    made = json.loads((tmp_path / "rows.json").read_text())
    assert Sizes(**made["sizes"]) == SMALL
    assert (made["rows"], made["versions"]["jax"]) == ([{"method": "dense", "auc": 0.5}], jax.__version__)
