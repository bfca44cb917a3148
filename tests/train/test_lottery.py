"""Iterative pruning with rewinding."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import spartax as sx
from spartax import prune, train
from spartax.records import Layout
from tests.oracles import prune as oracle
from tests.train import run

KEY = jax.random.key(0)
LAYERS = ("first", "second")
LAYOUTS = {"a": Layout((0,), (1,)), "b": Layout((0,), (1,))}


def problem():
    rng = np.random.default_rng(0)
    return {
        "a": jnp.asarray(rng.normal(size=(10, 8)), jnp.float32),
        "b": jnp.asarray(rng.normal(size=(5, 4)), jnp.float32),
    }


def fit_towards(target, seen):
    """A training that moves kept weights half of the way to a target, and everything under a mask far away."""

    def fit(params, key):
        seen.append((params, key))
        moved = {}
        for path, leaf in params.items():
            towards = jnp.where(leaf.mask, (leaf.weight + target[path]) / 2, 100.0)
            moved[path] = sx.Masked(towards, leaf.mask)
        return moved

    return fit


def play(rewind):
    rng = np.random.default_rng(1)
    target = {p: jnp.asarray(rng.normal(size=w.shape), jnp.float32) for p, w in problem().items()}
    seen = []
    transform = prune.prune(prune.magnitude(), 1 - 0.8**4, prune.pooled(0), schedule=prune.exponential(4), regrow=False)
    tickets = train.lottery(fit_towards(target, seen), problem(), transform, LAYOUTS, KEY, rounds=4, rewind=rewind)
    return tickets, seen, target


def test_every_round_removes_a_fifth_of_the_rest_and_nothing_comes_back():
    tickets, _, _ = play("weights")
    masks = [np.concatenate([np.ravel(t.params[p].mask) for p in LAYOUTS]) for t in tickets]
    assert [int(m.sum()) for m in masks] == [round(100 * 0.8**r) for r in range(5)]
    for before, after in itertools.pairwise(masks):
        assert not (after & ~before).any()
    assert tickets[0].info == {}
    assert sum(entry["kept"] for entry in tickets[2].info.values()) == 64


def test_weights_are_rewound_and_the_largest_trained_ones_survive():
    tickets, seen, target = play("weights")
    for params, _ in seen:
        for path, w in problem().items():
            np.testing.assert_array_equal(params[path].weight, w)
    trained = np.concatenate([np.ravel((problem()[p] + target[p]) / 2) for p in LAYOUTS])
    found = np.concatenate([np.ravel(tickets[4].params[p].mask) for p in LAYOUTS])
    np.testing.assert_array_equal(found, oracle.top(np.abs(trained), 41))


def test_rewinding_the_rate_keeps_the_trained_weights():
    tickets, seen, _ = play("rate")
    for ticket, (params, _) in zip(tickets, seen[1:]):
        for path in LAYOUTS:
            np.testing.assert_array_equal(params[path].weight, ticket.params[path].weight)


def test_every_round_trains_with_the_same_key():
    keys = [jax.random.key_data(key) for _, key in play("weights")[1]]
    assert all(np.array_equal(key, keys[0]) for key in keys)


def test_rounds_of_a_network_that_is_trained():
    """A ticket starts from the first weights, learns under its mask, and holds the largest trained ones of the last."""
    rng, images, tx = np.random.default_rng(0), run.images(), optax.adam(0.02)
    dense = {"first": rng.normal(size=(6, 12)), "second": rng.normal(size=(12, 3)), "bias": np.zeros(3)}
    dense = jax.tree.map(jnp.float32, dense)
    transform = prune.prune(prune.magnitude(), 1 - 0.7**2, schedule=prune.exponential(2), regrow=False)
    _, method = train.begin(transform, run.APPLY, dense, images.x, KEY)
    step, losses = train.make_step(train.clean(), tx, run.APPLY), []

    def fit(params, key):
        state, found = train.fit(step, train.init_state(params, tx), [(images.x, images.y)] * 12, key, progress=False)
        losses.append(found)
        return state.variables

    tickets = train.lottery(fit, dense, transform, method.layouts, KEY, rounds=2)
    of = lambda ticket, what: np.concatenate([np.ravel(what(ticket.params[p])) for p in LAYERS])  # noqa: E731
    masks = [of(ticket, lambda w: w.mask) for ticket in tickets]
    assert [int(mask.sum()) for mask in masks] == [108, round(108 * 0.7), round(108 * 0.7**2)]
    for before, mask in zip(tickets, masks[1:]):
        np.testing.assert_array_equal(mask, oracle.top(np.abs(of(before, sx.dense)), mask.sum()))
    for ticket, found in zip(tickets, losses):
        put = {path: w * np.asarray(ticket.params[path].mask) if path in LAYERS else w for path, w in dense.items()}
        logits = np.maximum(images.x[:, 0, 0] @ put["first"], 0) @ put["second"]
        logits -= np.log(np.exp(logits).sum(1, keepdims=True))
        np.testing.assert_allclose(found[0], -logits[np.arange(40), images.y].mean(), rtol=1e-5)
        assert found[-1] < 0.8 * found[0]


def test_bad_arguments():
    transform = prune.prune(prune.magnitude(), 0.5)
    with pytest.raises(ValueError, match="rounds must be an integer of at least 1; got 0"):
        train.lottery(lambda p, k: p, problem(), transform, LAYOUTS, KEY, rounds=0)
    with pytest.raises(ValueError, match="rewind must be one of 'weights', 'rate'; got 'step'"):
        train.lottery(lambda p, k: p, problem(), transform, LAYOUTS, KEY, rounds=1, rewind="step")
