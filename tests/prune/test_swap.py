import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spartax import prune
from spartax.prune.swap import Regression, cost, look, regress
from spartax.prune.transport import plan
from spartax.records import Evidence, Layout, Objective
from tests import plugs
from tests.oracles import prune as oracle
from tests.oracles.waves import wave


@functools.cache
def golden():
    rows, dense = wave(6, 8, a=0.5), wave(8, a=1.5)
    w = np.where(np.abs(dense) > 0.6, dense, 0)
    problem = Regression(jnp.asarray(rows, jnp.float32), jnp.asarray(dense, jnp.float32), 0.01)
    return problem, jnp.asarray(w, jnp.float32)


def cosine(a, b):
    return float(jnp.vdot(a, b) / jnp.linalg.norm(a) / jnp.linalg.norm(b))


def test_golden_plan_and_directions():
    problem, w = golden()
    pi, code, _ = look(problem, w, w != 0, 1.0, "paper_code")
    _, exact, _ = look(problem, w, w != 0, 1.0, "exact")
    identity, plain, _ = look(problem, w, w != 0, None, "exact")
    for axis in (0, 1):
        np.testing.assert_allclose(np.sum(pi, axis), 1 / 6, atol=1e-6)
    free = problem._replace(ridge=0.0)
    np.testing.assert_allclose(cost(free, pi, w) / 3, 0.2190685921, rtol=1e-4)
    np.testing.assert_allclose(cost(free, identity, w) / 3, 0.0619186691, rtol=1e-4)
    np.testing.assert_allclose(cosine(code, exact), 0.7868164266, rtol=1e-3)
    np.testing.assert_allclose(cosine(plain, exact), 0.7818953719, rtol=1e-3)
    at_dense = look(problem, problem.dense, w == w, 1.0, "exact")[1]
    np.testing.assert_allclose(jnp.linalg.norm(at_dense), 0.694266751, rtol=1e-3)
    assert np.all(np.abs(look(problem, problem.dense, w == w, 1.0, "paper_code")[1]) < 1e-6)


def test_exact_direction_is_the_gradient_and_the_step_is_the_minimum():
    problem, w = golden()
    mask = w != 0
    for entropy in (0.3, None):
        for direction in ("paper_code", "exact"):
            pi, d, best = look(problem, w, mask, entropy, direction)
            gradient = jax.grad(lambda w, pi=pi: cost(problem, pi, w))(w)
            if direction == "exact":
                np.testing.assert_allclose(d, gradient, rtol=1e-3, atol=1e-5)
            along = jnp.where(mask, -d, 0)
            slope = jax.grad(lambda t, pi=pi, along=along: cost(problem, pi, w + t * along))(best)
            assert abs(slope) < 1e-4 * float(jnp.linalg.norm(gradient) * jnp.linalg.norm(along))


def test_plans_between_the_limits():
    """Equal ranks without entropy; all with all at much; in between the fixed point of Sinkhorn's iteration."""
    source, target = np.array([0.0, 3.0, 1.0, 7.0]), np.array([2.0, 8.0, 1.0, 0.5])
    ranks = np.zeros((4, 4))
    ranks[np.argsort(source), np.argsort(target)] = 0.25
    find = lambda entropy: np.asarray(plan(jnp.asarray(source), jnp.asarray(target), entropy))  # noqa: E731
    np.testing.assert_allclose(find(0.0), ranks)
    np.testing.assert_allclose(find(0.05), ranks, atol=1e-4)  # exp(-64 / 0.05) is zero in float32
    np.testing.assert_allclose(find(float("inf")), np.full((4, 4), 1 / 16), rtol=1e-5)
    np.testing.assert_allclose(find(None), np.eye(4) / 4)
    kernel, u = np.exp(-((source[:, None] - target) ** 2) / 5), np.ones(4)
    for _ in range(500):
        v = 0.25 / (kernel.T @ u)
        u = 0.25 / (kernel @ v)
    np.testing.assert_allclose(find(5.0), u[:, None] * kernel * v, rtol=1e-4)


def largest(keep):
    return lambda w: jnp.asarray(oracle.top(np.abs(np.asarray(w)), keep))


@pytest.mark.parametrize("direction", ["paper_code", "exact"])
@pytest.mark.parametrize("entropy", [None, 0.0, 0.2])
def test_cost_falls_and_the_support_has_its_size(entropy, direction):
    rng = np.random.default_rng(2)
    problem = Regression(
        jnp.asarray(rng.normal(size=(6, 8)), jnp.float32), jnp.asarray(rng.normal(size=8), jnp.float32), 0.01
    )
    w, values = regress(problem, largest(4), entropy, direction, 12)
    assert values
    assert all(after <= before for before, after in values)
    assert values[0][1] < values[0][0]
    assert np.count_nonzero(w) == 4


def test_without_transport_it_is_ridge_regression_on_its_support():
    """On a fixed support the least squares have a closed form."""
    rng = np.random.default_rng(3)
    rows, dense = rng.normal(size=(20, 6)), rng.normal(size=6)
    support = np.array([1, 0, 1, 1, 0, 1], bool)
    problem = Regression(jnp.asarray(rows, jnp.float32), jnp.asarray(dense, jnp.float32), 0.1)
    found, _ = regress(problem, lambda w: jnp.asarray(support), None, "paper_code", 60)
    a = rows[:, support]
    expected = np.linalg.solve(a.T @ a + 20 * 0.1 * np.eye(4), a.T @ rows @ dense + 20 * 0.1 * dense[support])
    best = np.zeros(6)
    best[support] = expected
    cost = lambda w: np.sum((rows @ (w - dense)) ** 2) / 2 + np.sum((w - dense) ** 2)  # noqa: E731  n lambda / 2 = 1
    assert cost(best) <= cost(np.asarray(found, np.float64)) <= cost(best) * (1 + 1e-5)  # what float32 can tell apart
    np.testing.assert_allclose(np.asarray(found)[support], expected, atol=5e-3)
    assert np.abs(expected - dense[support]).max() > 0.05
    assert np.all(np.asarray(found)[~support] == 0)


def test_the_support_moves_where_magnitude_errs():
    """The two large weights are in no gradient; the small one carries the answer."""
    rng = np.random.default_rng(4)
    shared = rng.normal(size=(30, 1))
    rows = np.concatenate([1e-3 * rng.normal(size=(30, 2)), 3 * shared], axis=1)
    problem = Regression(jnp.asarray(rows, jnp.float32), jnp.array([1.0, 0.9, 0.8]), 1e-6)
    start = np.asarray(largest(1)(problem.dense))
    found, values = regress(problem, largest(1), None, "exact", 20)
    np.testing.assert_array_equal(start, [True, False, False])
    np.testing.assert_allclose(found, [0, 0, 0.8], atol=1e-2)
    assert values[-1][1] < 0.01 * values[0][0]


def test_prune_by_swap_over_two_layers():
    """Counts over all weights together, rows of `G` from single examples, a better network than magnitude leaves."""
    rng = np.random.default_rng(5)
    weights = {p: jnp.asarray(rng.normal(size=s), jnp.float32) for p, s in {"a": (6, 8), "b": (8, 3)}.items()}
    net = lambda w, x: jnp.tanh(x @ w["a"]) @ w["b"]  # noqa: E731
    x, y = jnp.asarray(rng.normal(size=(40, 6)), jnp.float32), jnp.asarray(rng.integers(0, 3, 40))
    objective = Objective(net, ((x[:24], y[:24]), (x[24:], y[24:])), plugs.cross_entropy)
    given = Evidence({p: Layout((0,), (1,)) for p in weights}, objective=objective)
    found, info = plugs.run(prune.swap(0.5, entropy=0.1), weights, given)
    assert sum(entry["kept"] for entry in info.values()) == 36
    assert sum(int(leaf.mask.sum()) for leaf in found.values()) == 36
    magnitude, _ = plugs.run(prune.prune(prune.magnitude(), 0.5), weights, given)
    moved = {p: np.asarray(plugs.dense(w)) for p, w in found.items()}
    plain = {p: np.asarray(plugs.dense(w)) for p, w in magnitude.items()}
    assert all(np.count_nonzero(moved[p]) == info[p]["kept"] for p in weights)

    one = jax.jit(jax.vmap(jax.grad(lambda w, x, y: plugs.cross_entropy(net(w, x[None]), y[None])[0]), (None, 0, 0)))
    g = one(weights, x, y)

    def error(new):
        return sum(np.tensordot(np.asarray(g[p]), np.asarray(weights[p]) - new[p], 2) for p in weights)

    assert np.abs(error(plain)).max() > 0.1
    assert np.sum(error(moved) ** 2) < 0.8 * np.sum(error(plain) ** 2)
    again, _ = plugs.run(prune.swap(0.5, entropy=0.1), weights, given)
    jax.tree.map(np.testing.assert_array_equal, again, found)
    turned = objective._replace(batches=((x[:23:-1], y[:23:-1]), (x[23::-1], y[23::-1])))  # examples and batches
    other, _ = plugs.run(prune.swap(0.5, entropy=0.1), weights, given._replace(objective=turned))
    for path in weights:
        np.testing.assert_array_equal(other[path].mask, found[path].mask)
        np.testing.assert_allclose(plugs.dense(other[path]), moved[path], rtol=1e-2, atol=1e-3)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="direction must be one of"):
        prune.swap(direction="code")
    with pytest.raises(ValueError, match="entropy must be in"):
        prune.swap(entropy=-1.0)
    with pytest.raises(ValueError, match="ridge must be in"):
        prune.swap(ridge=-1.0)
    given = Evidence({"a": Layout((0,), (1,))}, objective=Objective(
        lambda w, x: x @ w["a"], ((jnp.zeros((4, 2)), jnp.zeros(4, int)),), plugs.cross_entropy))  # fmt: skip
    with pytest.raises(ValueError, match="swap: the gradient of the loss is zero everywhere"):
        plugs.run(prune.swap(0.5), {"a": jnp.ones((2, 3))}, given)
