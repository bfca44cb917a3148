"""Rounds of SNIP, each on the network that the last one left."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spartax import prune
from spartax.records import Evidence, Layout, Objective
from tests import plugs
from tests.oracles import prune as oracle

ROUNDS = 4


def problem():
    """A product of three layers and its regression; the last layer has many weights."""
    rng = np.random.default_rng(3)
    weights = {"a": rng.normal(size=(5, 4)), "b": rng.normal(size=(4, 4)), "c": rng.normal(size=(4, 20))}
    x, y = rng.normal(size=(30, 5)), rng.normal(size=(30, 20))
    return weights, x, y


def gradients(weights, x, y):
    """Of `mean over examples of sum (x a b c - y)^2 / 2`."""
    first, second = x @ weights["a"], x @ weights["a"] @ weights["b"]
    error = (second @ weights["c"] - y) / len(x)
    below = error @ weights["c"].T
    return {"a": x.T @ (below @ weights["b"].T), "b": first.T @ below, "c": second.T @ error}


def by_hand(weights, x, y, counts):
    masks = {path: np.ones(w.shape, bool) for path, w in weights.items()}
    for count in counts:
        left = {path: np.where(masks[path], w, 0) for path, w in weights.items()}
        slopes = gradients(left, x, y)
        scores = [np.where(masks[path], np.abs(left[path] * slopes[path]), -1).ravel() for path in weights]
        chosen = np.split(oracle.top(np.concatenate(scores), count), np.cumsum([s.size for s in scores])[:-1])
        masks = {path: m.reshape(weights[path].shape) for path, m in zip(weights, chosen)}
    return masks


def test_every_round_takes_the_gradient_where_the_last_one_left_the_network():
    weights, x, y = problem()
    single = {path: jnp.asarray(w, jnp.float32) for path, w in weights.items()}
    objective = Objective(
        jax.jit(lambda w, x: x @ w["a"] @ w["b"] @ w["c"]),
        ((jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)),),
        lambda logits, y: jnp.sum(jnp.square(logits - y), axis=1) / 2,
    )
    given = Evidence(dict.fromkeys(weights, Layout((0,), (1,))), objective=objective)
    options = {"allocation": prune.pooled(0), "schedule": prune.exponential(ROUNDS), "regrow": False}
    transform = prune.iterative(prune.prune(prune.snip(), 0.9, **options), ROUNDS)
    found, info = plugs.run(transform, single, given)
    expected = by_hand(weights, x, y, [round(116 * 0.1 ** (k / ROUNDS)) for k in range(1, ROUNDS + 1)])
    at_once = by_hand(weights, x, y, [12])
    for path in weights:
        np.testing.assert_array_equal(found[path].mask, expected[path], err_msg=path)
    assert any(np.any(expected[path] != at_once[path]) for path in weights)
    assert sum(entry["kept"] for entry in info.values()) == 12


def test_bad_arguments():
    with pytest.raises(ValueError, match="rounds must be an integer of at least 1; got 0"):
        prune.iterative(prune.prune(prune.snip()), 0)
    with pytest.raises(ValueError, match="pruner needs moments, measured before the first round"):
        prune.iterative(prune.prune(prune.sparsegpt()), 3)
