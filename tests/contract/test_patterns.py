"""What every pattern obeys."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spartax import catalog, prune
from tests import plugs

CASES = {p: jnp.asarray(np.random.default_rng(0).permutation(w.size).reshape(w.shape), jnp.float32)
         for p, w in plugs.draw().items() if p in ("dense", "conv")}  # fmt: skip


OPTIONS = {"block": {"shape": (4, 5)}}  # 24 x 20 and 72 x 20 in whole blocks; the default is larger than both


@pytest.fixture(params=catalog.names(prune.patterns))
def pattern(request):
    return catalog.load(prune.patterns, request.param)(**OPTIONS.get(request.param, {}))


@pytest.fixture(params=list(CASES))
def case(request, pattern):
    """(score, kept count, layout)."""
    score = CASES[request.param]
    sparsity = getattr(pattern, "sparsity", 0.75)
    return score, round((1 - sparsity) * score.size), plugs.LAYOUTS[request.param]


def test_exactly_the_count_and_the_same_under_jit(pattern, case):
    score, keep, layout = case
    mask = pattern(score, keep, layout)
    assert mask.dtype == jnp.bool_
    assert mask.shape == score.shape
    assert np.asarray(mask).sum() == keep
    np.testing.assert_array_equal(mask, jax.jit(lambda s: pattern(s, keep, layout))(score))


def test_only_the_order_of_the_scores_matters(pattern, case):
    """For patterns of single entries; one of whole blocks adds scores up, and stays the same under scaling alone."""
    score, keep, layout = case
    np.testing.assert_array_equal(
        pattern(jnp.asarray(4.0 * np.asarray(score)), keep, layout), pattern(score, keep, layout)
    )


def test_a_kept_entry_that_grows_stays(pattern, case):
    score, keep, layout = case
    mask = pattern(score, keep, layout)
    place = tuple(np.argwhere(np.asarray(mask))[keep // 2])
    grown = np.array(score)
    grown[place] += 1e6
    assert np.asarray(pattern(jnp.asarray(grown), keep, layout))[place]


def test_keeps_more_score_than_it_removes(pattern, case):
    score, keep, layout = case
    mask = pattern(score, keep, layout)
    score, mask = np.asarray(score), np.asarray(mask)
    assert score[mask].mean() > score[~mask].mean()


def test_ties_are_broken_the_same_way_every_time(pattern, case):
    score, keep, layout = case
    flat = jnp.asarray(np.zeros(score.shape, np.float32))
    mask = pattern(flat, keep, layout)
    assert np.asarray(mask).sum() == keep
    np.testing.assert_array_equal(mask, pattern(flat, keep, layout))


def test_units_are_kept_or_removed_whole(pattern, case):
    score, keep, layout = case
    if hasattr(pattern, "unit"):
        unit, spread = pattern.unit(score.shape, layout), np.asarray(pattern.spread(score, layout))
        mask = np.asarray(pattern(score, keep, layout))
        assert keep % unit == 0 < keep < score.size
        assert spread.shape == score.shape
        for value in np.unique(spread):
            assert (spread == value).sum() % unit == 0 == mask[spread == value].sum() % unit
        assert spread[mask].min() >= spread[~mask].max()


def test_a_smaller_count_keeps_a_part(pattern, case):
    score, keep, layout = case
    if not hasattr(pattern, "sparsity"):
        fewer, more = pattern(score, keep // 2, layout), pattern(score, keep, layout)
        assert not (np.asarray(fewer) & ~np.asarray(more)).any()
