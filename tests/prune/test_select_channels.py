"""Scores of channels and which of them go, by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

import spartax as sx
from spartax import prune
from spartax.program import Group, Member

COLUMNS = np.arange(3)[:, None]
GROUPS = {
    "a": Group((Member("w", 1, COLUMNS, "output"), Member("v", 0, np.arange(6).reshape(3, 2), "input")), 3, None),
    "b": Group((Member("v", 1, np.arange(2)[:, None], "output"),), 2, "output of the model"),
}
W = jnp.array([[3.0, 0.0, 1.0], [4.0, 0.0, -1.0]])
V = jnp.array([[1.0, 0.0], [0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [0.0, 0.0], [0.0, 0.0]])


def test_norms_are_averaged_over_members_and_divided_by_their_mean():
    """Columns of w: 5, 0, sqrt 2; pairs of rows of v: 1, sqrt 8, 0."""
    scores = prune.group_scores(GROUPS, {"w": W, "v": V})
    raw = np.array([3.0, np.sqrt(2), np.sqrt(0.5)])
    assert list(scores) == ["a"]
    np.testing.assert_allclose(scores["a"], raw / raw.mean(), rtol=1e-12)
    only = prune.group_scores(GROUPS, {"w": W}, power=1)["a"]
    np.testing.assert_allclose(only, np.array([7, 0, 2]) / 3, rtol=1e-12)


def test_signed_sums_cancel():
    """First-order Taylor is |sum w g|: the third column of w sums to zero."""
    np.testing.assert_allclose(prune.group_scores(GROUPS, {"w": W}, power=None)["a"], [3, 0, 0])


def test_scores_of_a_program_find_the_channel_that_was_made_small():
    fn = lambda p, x: jnp.tanh(x @ p["u"]) @ p["v"]  # noqa: E731
    params = {"u": jnp.ones((2, 4)).at[:, 2].set(0.1), "v": jnp.ones((4, 3)).at[2].set(0.1)}
    scores = prune.group_scores(sx.groups(fn, params, jnp.ones((1, 2))), params)
    assert {n: int(np.argmin(s)) for n, s in scores.items()} == {"u": 2}
    assert scores["u"][2] == pytest.approx(0.1 / 0.775)


SCORES = {"a": np.array([5.0, 1.0, 2.0, 1.0]), "b": np.array([0.1, 0.2, 0.3, 0.4, 9.0, 9.0])}


def kept(removed):
    return {name: np.flatnonzero(~gone).tolist() for name, gone in removed.items()}


def test_pooled_ranking():
    assert kept(prune.select_channels(SCORES, 0.5)) == {"a": [0, 1, 2], "b": [4, 5]}  # a tie: index 1 stays


def test_every_group_on_its_own():
    assert kept(prune.select_channels(SCORES, 0.5, pooled=False)) == {"a": [0, 2], "b": [3, 4, 5]}


def test_no_group_loses_too_much():
    """Of 10 channels 7 go; b may lose 3, so the others come from a, which may lose 2 of 4: only 5 can go."""
    assert kept(prune.select_channels(SCORES, 0.7, max_sparsity=0.5)) == {"a": [0, 2], "b": [3, 4, 5]}
    assert kept(prune.select_channels(SCORES, 0.6, least=4)) == {"a": [0, 1, 2, 3], "b": [2, 3, 4, 5]}


def test_kept_counts_are_rounded_up_with_the_best_of_the_removed():
    assert kept(prune.select_channels(SCORES, 0.5, round_to=4)) == {"a": [0, 1, 2, 3], "b": [2, 3, 4, 5]}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"sparsity": 1.0}, r"sparsity must be in \[0.0, 1.0\)"),
        ({"max_sparsity": 1.5}, "max_sparsity must be"),
        ({"least": 0}, "least must be an integer"),
        ({"round_to": 0}, "round_to must be an integer"),
        ({"scores": {}}, "at least one group"),
    ],
)
def test_bad_selections(change, match):
    with pytest.raises(ValueError, match=match):
        prune.select_channels(**{"scores": SCORES, "sparsity": 0.5, **change})


def test_bad_scores():
    with pytest.raises(ValueError, match="power must be positive"):
        prune.group_scores(GROUPS, {"w": W}, power=0)
    with pytest.raises(ValueError, match="none of the weights of group a"):
        prune.group_scores(GROUPS, {"z": W})
    with pytest.raises(ValueError, match="score of group a holds NaN"):
        prune.group_scores(GROUPS, {"w": W.at[0, 0].set(jnp.nan)})
