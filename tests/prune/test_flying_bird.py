"""Flying Bird+: sparsity falls where the robust gap rises, and rises where the held-out loss does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spartax as sx
from spartax import attacks, prune, train
from spartax.prune.flying_bird import moved, rising
from spartax.records import Evidence, Layout

GIVEN = Evidence({"w": Layout((0,), (1,))}, key=jax.random.key(0), step=0)
WEIGHT = jnp.asarray(np.random.default_rng(0).normal(size=(50, 40)), jnp.float32)
FALLS, RISES = (5.0, 4.0, 3.0, 2.0, 1.0), (1.0, 2.0, 1.5, 2.5, 2.0)  # rises: two of four


def flown(losses, gaps, end=10**9):
    """Kept counts after each refresh, told these values."""
    told = iter(zip(losses, gaps))
    transform = prune.flying_bird(lambda params: next(told), 0.8, prune.uniform(), end=end, fraction=0.5)
    params, state = transform.init({"w": WEIGHT}, GIVEN)
    counts = []
    for number in range(len(losses)):
        given = GIVEN._replace(step=number, key=jax.random.key(number))
        params, state, info = transform.update(params, state, given)
        assert int(params["w"].mask.sum()) == state.counts["w"] == info["w"]["kept"]
        counts.append(state.counts["w"])
    return counts, info["w"]


def test_without_overfitting_the_count_stays():
    counts, info = flown(FALLS, FALLS)
    assert counts == [400] * 5
    assert info["moved"] == (200, 200)


def test_a_gap_that_rises_makes_it_sparser_and_a_loss_that_rises_denser():
    assert flown(FALLS, RISES)[0] == [400, 400, 400, 400, 400 - int(0.4 * 200)]
    assert flown(RISES, FALLS)[0] == [400, 400, 400, 400, 400 + int(0.05 * 200)]
    counts, info = flown(RISES, RISES)
    assert counts[-1] == 400 - 80 + 10
    assert (info["loss_rises"], info["gap_rises"], info["moved"]) == (True, True, (280, 210))


def test_the_smallest_go_and_any_grow():
    transform = prune.flying_bird(lambda params: (0.0, 0.0), 0.8, prune.uniform(), end=10**9)
    params, state = transform.init({"w": WEIGHT}, GIVEN)
    after, _, _ = transform.update(params, state, GIVEN._replace(key=jax.random.key(5)))
    old, new = np.asarray(params["w"].mask), np.asarray(after["w"].mask)
    largest = np.sort(np.abs(np.asarray(WEIGHT))[old])[-200:]
    assert np.isin(largest, np.abs(np.asarray(sx.dense(after["w"])))).all()
    grown = np.abs(np.asarray(WEIGHT))[new & ~old]
    assert 150 <= grown.size <= 200
    assert abs(np.median(grown) - np.median(np.abs(WEIGHT))) < 0.15  # not the largest, nor the smallest


def test_half_of_the_differences_is_enough_and_all_must_be_there():
    assert rising(np.stack([FALLS, RISES], 1)) == (False, True)
    assert rising(np.array([[np.nan, np.nan], [1, 1], [2, 2], [3, 3], [4, 4]])) == (False, False)
    assert moved(3, 8, 1.0, more=True, fewer=True) == (2, 3)  # one is left
    assert moved(20, 24, 1.0, more=True, fewer=False) == (19, 21)


def test_the_gap_is_that_of_accuracies_under_attack():
    """Four linear images, of which the attack turns those nearer than eps to the boundary at one half."""
    apply = lambda w, x: jnp.stack([x[:, 0] - 0.5, 0.5 - x[:, 0]], axis=1) * w  # noqa: E731
    x, y = np.array([[0.9], [0.2], [0.55], [0.7]], np.float32), np.array([0, 1, 0, 0], np.int32)
    key = jax.random.key(0)
    watch = train.robust_gap(attacks.fgsm(0.1), apply, (x, y), (x[2:], y[2:]), key)
    loss, gap = watch(jnp.float32(2.0))
    moved = np.array([0.45, 0.6])
    np.testing.assert_allclose(loss, np.log1p(np.exp(-4 * (moved - 0.5))).mean(), rtol=1e-5)
    assert gap == 0.75 - 0.5
    with pytest.raises(ValueError, match="held"):
        train.robust_gap(attacks.fgsm(0.1), apply, (x, y), (x, y[:2]), key)


def test_bad_options_are_named():
    for name, options in {"sparsity": {"sparsity": 1.0}, "fraction": {"fraction": 2.0}, "end": {"end": 0}}.items():
        with pytest.raises(ValueError, match=f"{name} must be"):
            prune.flying_bird(lambda params: (0.0, 0.0), **{"end": 5, **options})
    with pytest.raises(ValueError, match="watch: what it gives holds NaN"):
        flown([np.nan], [0.1])
    with pytest.raises(ValueError, match="watch must be a function"):
        prune.flying_bird(None, end=5)
