import jax.numpy as jnp
import numpy as np
import pytest

from spartax import prune
from spartax.records import Evidence
from tests import plugs


def test_known_answer():
    """`conv` runs at 9 places, `dense` at one: an entry of it costs nine times as much."""
    given = plugs.evidence({p: w for p, w in plugs.draw().items() if p in ("dense", "conv")})
    scores = {"dense": jnp.linspace(1, 2, 480).reshape(24, 20), "conv": jnp.full((3, 3, 8, 20), 8.9)}
    total = 9 * 1440 + 480
    assert prune.by_macs(0)(scores, 1 - 300 / total, given) == {"dense": 300, "conv": 0}
    assert prune.by_macs(0)(scores, 1 - 485 / total, given) == {"dense": 480, "conv": 0}
    dear = {**scores, "conv": jnp.full((3, 3, 8, 20), 18.1)}
    assert prune.by_macs(0)(dear, 1 - 930 / total, given) == {"dense": 0, "conv": 103}


def test_is_the_best_of_all_counts_under_the_budget():
    """Against every pair of counts of two small layers."""
    given = plugs.evidence({p: w for p, w in plugs.draw().items() if p in ("dense", "conv")})
    rng = np.random.default_rng(0)
    scores = {"dense": rng.uniform(size=(24, 20)), "conv": 4 * rng.uniform(size=(3, 3, 8, 20))}
    budget = 0.3 * (9 * 1440 + 480)
    best = {p: np.concatenate([[0], np.cumsum(-np.sort(-s.ravel()))]) for p, s in scores.items()}
    left = np.minimum(480, budget - 9 * np.arange(int(budget / 9) + 1)).astype(int)
    every = best["conv"][: len(left)] + best["dense"][left]
    found = prune.by_macs(0)({p: jnp.asarray(s, jnp.float32) for p, s in scores.items()}, 0.7, given)
    assert 9 * found["conv"] + found["dense"] <= budget
    assert best["conv"][found["conv"]] + best["dense"][found["dense"]] >= every.max() - 4  # one entry of `conv`
    assert prune.pooled(0)({p: jnp.asarray(s) for p, s in scores.items()}, 0.7, given)["conv"] > found["conv"]


def test_floors_and_what_they_cost():
    given = plugs.evidence()
    scores = {path: jnp.abs(w) for path, w in plugs.draw().items()}
    found = prune.by_macs(0.1)(scores, 0.85, given)
    assert all(found[p] >= np.ceil(0.1 * s.size) for p, s in scores.items())
    with pytest.raises(ValueError, match=r"min_kept=0.5 takes 0.5000 of the multiply-adds"):
        prune.by_macs(0.5)(scores, 0.9, given)


def test_a_weight_without_a_use_is_named():
    with pytest.raises(ValueError, match="never contracts w with"):
        prune.by_macs()({"w": jnp.ones((2, 2))}, 0.5, Evidence({}, uses={"w": ()}))
