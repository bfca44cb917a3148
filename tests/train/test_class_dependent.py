"""Rounds of pruning under a bound on the misses of a class."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spartax as sx
from spartax import measure, prune, train
from spartax.records import Layout

KEY = jax.random.key(0)
LAYOUTS = {"w": Layout((0,), (1,))}
ROUNDS = 3
TRANSFORM = prune.prune(prune.magnitude(), 1 - 0.5**ROUNDS, schedule=prune.exponential(ROUNDS), regrow=False)


def play(misses, rounds=ROUNDS, **options):
    """A training that changes nothing but writes down what it was asked for."""
    seen = []

    def fit(params, key, emphasis):
        seen.append((int(params["w"].mask.sum()), emphasis))
        return params

    answers = iter(misses)
    params = {"w": jnp.arange(1.0, 17).reshape(8, 2)}
    found = train.class_dependent(
        fit, lambda params: next(answers), params, TRANSFORM, LAYOUTS, KEY, rounds=rounds, **options
    )
    return found, seen


def test_a_round_that_misses_too_many_is_trained_again_and_later_rounds_keep_the_emphasis():
    found, seen = play([0.1, 0.1, 0.3, 0.2, 0.1, 0.05], growth=2.0)
    assert seen == [(16, 1.0), (8, 1.0), (4, 1.0), (4, 2.0), (4, 4.0), (2, 4.0)]
    assert [(int(r.params["w"].mask.sum()), r.emphasis, r.misses) for r in found] == [
        (16, 1.0, 0.1), (8, 1.0, 0.1), (4, 4.0, 0.1), (2, 4.0, 0.05)
    ]  # fmt: skip
    assert [r.info.get("w", {}).get("kept") for r in found] == [None, 8, 4, 2]


def test_it_ends_with_the_last_round_that_kept_the_bound():
    found, seen = play([0.2, 0.2, 0.5, 0.4, 0.3], growth=2.0, most=4.0)
    assert seen[-3:] == [(4, 1.0), (4, 2.0), (4, 4.0)]
    assert [int(r.params["w"].mask.sum()) for r in found] == [16, 8]
    looser, _ = play([0.2, 0.2, 0.3, 0.3], slack=0.5)
    assert [int(r.params["w"].mask.sum()) for r in looser] == [16, 8, 4, 2]


def logistic(x, y):
    """Weighted logistic regression by gradient descent under the masks, from what it is given."""

    def fit(params, key, emphasis):
        del key
        weights = np.asarray(train.class_weights(y, 2, important=(1,), emphasis=emphasis))[y]
        leaf = params["w"]
        w, mask = np.array(leaf.weight, np.float64), np.asarray(leaf.mask)
        for _ in range(400):
            logits = x @ (w * mask)
            p = np.exp(logits - logits.max(1, keepdims=True))
            error = p / p.sum(1, keepdims=True) - np.eye(2)[y]
            w -= 0.02 * mask * (x.T @ (weights[:, None] * error)) / len(x)
        return {"w": sx.Masked(jnp.asarray(w, jnp.float32), leaf.mask)}

    return fit


def test_fewer_misses_than_the_same_rounds_without_emphasis():
    """A rare class in the overlap of the common one: pruned networks find it only where the loss leans on it."""
    rng = np.random.default_rng(6)
    y = (rng.random(400) < 0.15).astype(int)
    x = rng.normal(size=(400, 8)) + 0.7 * y[:, None] * rng.uniform(0.3, 1.0, 8)
    x = np.concatenate([x, np.ones((400, 1))], axis=1)
    misses = lambda params: measure.class_rates(x @ np.asarray(sx.dense(params["w"])), y, 1).misses  # noqa: E731
    params = {"w": jnp.asarray(0.01 * rng.normal(size=(9, 2)), jnp.float32)}
    held = train.class_dependent(logistic(x, y), misses, params, TRANSFORM, LAYOUTS, KEY, rounds=ROUNDS)
    plain = train.lottery(
        lambda p, k: logistic(x, y)(p, k, 1.0), params, TRANSFORM, LAYOUTS, KEY, rounds=ROUNDS
    )  # fmt: skip
    assert len(held) == ROUNDS + 1
    assert held[-1].emphasis > 1
    assert all(r.misses == misses(r.params) <= held[0].misses for r in held)
    assert min(misses(ticket.params) for ticket in plain[1:]) > held[0].misses
    assert held[-1].params["w"].mask.sum() == plain[-1].params["w"].mask.sum() == 2


def test_class_weights_by_hand():
    y = np.array([0, 0, 0, 1, 2, 2])
    assert train.class_weights(y, 3, important=(1,)) == (1.0, 5.0, 1.0)
    assert train.class_weights(y, 3, important=(1, 2), emphasis=1.5) == (1.0, 7.5, 3.0)
    with pytest.raises(ValueError, match="class 2 has 0 of 2 examples"):
        train.class_weights(np.array([0, 1]), 3, important=(2,))
    with pytest.raises(ValueError, match="important must be one of"):
        train.class_weights(y, 3, important=(3,))


def test_bad_options_are_named():
    for name, options in {"rounds": {"rounds": 0}, "growth": {"growth": 1.0}, "most": {"most": 0.5}}.items():
        with pytest.raises(ValueError, match=f"{name} must be"):
            play([], **options)
    with pytest.raises(ValueError, match="slack must be"):
        play([], slack=-0.1)
    with pytest.raises(ValueError, match="misses: what it gives must be in"):
        play([3])
