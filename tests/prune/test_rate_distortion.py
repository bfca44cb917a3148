import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spartax import prune
from spartax.prune.allocations import _curves, rate_distortion
from spartax.records import Evidence, Layout, Objective
from tests import plugs
from tests.oracles import prune as oracle

RNG = np.random.default_rng(0)
WEIGHTS = {"loud": RNG.normal(size=(6, 5)), "quiet": RNG.normal(size=(6, 5)), "mixed": RNG.normal(size=(6, 10))}
GAINS = {"loud": 10.0, "quiet": 0.1, "mixed": 1.0}
X = RNG.normal(size=(32, 6))
GRID = (0.2, 0.5, 0.9)


def network(weights, x):
    """The outputs of independent layers, so that errors add up exactly."""
    return jnp.concatenate([GAINS[p] * (x @ weights[p]) for p in WEIGHTS], axis=1)


def given():
    weights = {p: jnp.asarray(w, jnp.float32) for p, w in WEIGHTS.items()}
    objective = Objective(jax.jit(network), (jnp.asarray(X[:20], jnp.float32), (jnp.asarray(X[20:], jnp.float32), 0)))
    return Evidence({p: Layout((0,), (1,)) for p in WEIGHTS}, originals=weights, objective=objective)


SCORES = {p: jnp.asarray(np.abs(w), jnp.float32) for p, w in WEIGHTS.items()}
COUNTS = {"loud": [30, 24, 15, 3], "quiet": [30, 24, 15, 3], "mixed": [60, 48, 30, 6]}


def curve(path, keep, reduce=np.mean):
    """Error of the outputs of all three layers with one of them pruned."""
    score = np.abs(WEIGHTS[path]).astype(np.float32)
    error = GAINS[path] * (X @ np.where(oracle.top(score, keep), 0, WEIGHTS[path]))
    return reduce(np.sum(error**2, axis=1) / 20)


def test_curves_are_the_errors_of_the_output():
    mean, worst = (_curves.distortions(SCORES, COUNTS, given(), worst) for worst in (False, True))
    for path, counts in COUNTS.items():
        np.testing.assert_allclose(mean[path], [curve(path, k) for k in counts], rtol=1e-4, atol=1e-9)
        expected = np.maximum.accumulate([curve(path, k, np.max) for k in counts])
        np.testing.assert_allclose(worst[path], expected, rtol=1e-4, atol=1e-9)


def test_a_curve_that_dips_is_made_monotone():
    """Removing the second entry takes away the error of the first."""
    objective = Objective(jax.jit(lambda w, x: x @ w["w"]), (jnp.ones((1, 2)),))
    weights = {"w": jnp.array([[1.0], [-1.01]])}
    evidence = Evidence({}, originals=weights, objective=objective)
    found = _curves.distortions({"w": jnp.abs(weights["w"])}, {"w": [2, 1, 0]}, evidence)
    np.testing.assert_allclose(found["w"], [0, 1, 1], atol=1e-6)


def test_entries_that_are_gone_cost_what_they_carried_and_no_more():
    """Scores 3, 2 and two of minus infinity: the largest count is 2, and its error is that of the other two."""
    weights = {"w": jnp.array([[3.0], [9.0], [2.0], [1.0]])}
    score = {"w": jnp.where(jnp.array([[1], [0], [1], [0]]) > 0, weights["w"], -jnp.inf)}
    evidence = Evidence({}, originals=weights, objective=Objective(lambda w, x: x @ w["w"], (jnp.ones((1, 4)),)))
    assert _curves.removed(score, {"w": [4, 2, 1, 0]})["w"].tolist() == [0, 0, 2, 5]
    assert _curves.distortions(score, {"w": [4, 2, 1, 0]}, evidence)["w"].tolist() == [100, 100, 144, 225]
    assert prune.rate_distortion((0.5, 0.75))(score, 0.25, evidence) == {"w": 2}


@pytest.mark.parametrize("sparsity", [0.2, 0.4, 0.7, 0.85])
def test_is_the_best_of_all_combinations_and_exact(sparsity):
    keep = round((1 - sparsity) * 120)
    curves = {p: [curve(p, k) for k in counts] for p, counts in COUNTS.items()}
    every = itertools.product(range(4), repeat=3)
    chosen = min(
        (c for c in every if sum(COUNTS[p][i] for p, i in zip(COUNTS, c)) <= keep),
        key=lambda c: sum(curves[p][i] for p, i in zip(COUNTS, c)),
    )
    found = prune.rate_distortion(GRID)(SCORES, sparsity, given())
    assert sum(found.values()) == keep
    assert all(found[p] >= COUNTS[p][i] for p, i in zip(COUNTS, chosen))
    assert found["loud"] > found["quiet"] or sparsity == 0.2
    pooled = prune.pooled(0)(SCORES, sparsity, given())
    errors = [sum(curve(p, counts[p]) for p in COUNTS) for counts in (found, pooled)]
    assert errors[0] < errors[1]


def test_what_is_left_goes_where_the_curve_is_steepest():
    curves, counts = [np.array([0.0, 4.0, 9.0]), np.array([0.0, 6.0, 7.0])], [[8, 4, 2], [8, 4, 2]]
    fill = rate_distortion.fill
    assert fill(curves, counts, [2, 2], 5) == [3, 2]  # 2.5, against 0.5
    assert fill(curves, counts, [2, 2], 8) == [6, 2]  # then 1.0, against 0.5
    assert fill(curves, counts, [1, 1], 10) == [4, 6]  # 1.0, against 1.5
    assert fill(curves, counts, [0, 0], 16) == [8, 8]


def test_needs_an_objective_and_a_grid_that_reaches_the_sparsity():
    transform = prune.prune(prune.magnitude(), 0.5, prune.rate_distortion(GRID))
    assert transform.needs == {"objective", "originals"}
    with pytest.raises(ValueError, match="objective is needed"):
        plugs.run(transform, given().originals, given()._replace(objective=None))
    with pytest.raises(ValueError, match=r"above the grid, which ends at 0\.9"):
        prune.rate_distortion(GRID)(SCORES, 0.95, given())


@pytest.mark.parametrize("options", [{"sparsities": ()}, {"sparsities": (0.5, 1.0)}, {"buckets": 0}])
def test_bad_options(options):
    with pytest.raises(ValueError, match="must"):
        prune.rate_distortion(**options)
