"""Mixed precision: the exact choice, exact bytes, sensitivities against oracles, and a gain over one width."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spartax as sx
from spartax import quantize
from spartax.quantize.bits.correlation import mean_correlation
from spartax.quantize.bits.hessian_trace import hessian_traces
from spartax.quantize.records import Sensitivity
from spartax.records import Evidence, Layout, Objective
from tests import plugs

GRIDS = [quantize.integer(bits) for bits in (2, 3, 4, 6, 8)]
SHAPES = {"a": (8, 6), "b": (6, 9), "c": (9, 5), "d": (5, 3)}
LAYOUTS = {path: Layout((0,), (1,)) for path in SHAPES}
RNG = np.random.default_rng(3)
WEIGHTS = {p: jnp.asarray(RNG.normal(size=s), jnp.float32) for p, s in SHAPES.items()}
GIVEN = Evidence(LAYOUTS)


def table(losses):
    """A sensitivity that is known beforehand."""
    return Sensitivity(frozenset(), lambda weights, candidates, evidence: losses)


@pytest.fixture(scope="module")
def leaves():
    return [plugs.run(quantize.quantize(grid), WEIGHTS, GIVEN)[0] for grid in GRIDS]


@pytest.mark.parametrize("budget", [205, 220, 251, 290, 400])
def test_the_choice_is_the_best_of_all(leaves, budget):
    losses = {p: np.sort(RNG.exponential(size=5))[::-1].tolist() for p in SHAPES}
    size = lambda picked: sum(sx.nbytes(leaves[i][p]) for p, i in zip(SHAPES, picked))  # noqa: E731
    loss = lambda picked: sum(losses[p][i] for p, i in zip(SHAPES, picked))  # noqa: E731
    best = min((c for c in itertools.product(range(5), repeat=4) if size(c) <= budget), key=loss)
    params, info = plugs.run(quantize.mixed(GRIDS, table(losses), budget=budget), WEIGHTS, GIVEN)
    assert [entry["bits"] for entry in info.values()] == [GRIDS[i].bits for i in best]
    assert sx.nbytes(params) == size(best) <= budget
    np.testing.assert_allclose(sum(entry["predicted"] for entry in info.values()), loss(best))


def test_a_budget_below_the_smallest_grids_is_refused(leaves):
    least = sx.nbytes(leaves[0])
    zeros = table({p: [0.0] * 5 for p in SHAPES})
    assert sx.nbytes(plugs.run(quantize.mixed(GRIDS, zeros, budget=least), WEIGHTS, GIVEN)[0]) == least
    with pytest.raises(ValueError, match=f"budget must be at least {least}, every weight on its smallest grid"):
        quantize.mixed(GRIDS, zeros, budget=least - 1).init(WEIGHTS, GIVEN)
    with pytest.raises(ValueError, match=r"mean_bits must be at least .* got 2\."):
        quantize.mixed(GRIDS, zeros, mean_bits=2).init(WEIGHTS, GIVEN)


@pytest.mark.parametrize("given", [{}, {"budget": 100, "mean_bits": 4}])
def test_one_budget_is_given(given):
    with pytest.raises(ValueError, match="give either budget"):
        quantize.mixed(GRIDS, quantize.output_kl(), **given)


def test_mean_bits_are_bytes_of_all_entries():
    losses = table({p: [5.0, 4.0, 3.0, 2.0, 1.0] for p in SHAPES})
    entries = sum(w.size for w in WEIGHTS.values())
    one, _ = plugs.run(quantize.mixed(GRIDS, losses, mean_bits=9.0), WEIGHTS, GIVEN)
    two, _ = plugs.run(quantize.mixed(GRIDS, losses, budget=int(9.0 * entries / 8)), WEIGHTS, GIVEN)
    assert sx.nbytes(one) == sx.nbytes(two) <= 9.0 * entries / 8


def test_a_grid_as_budget_is_its_own_bytes(leaves):
    """Where every loss rewards bytes alike, the budget is spent to the last byte of the uniform grid."""
    losses = table({p: [float(-sx.nbytes(tree[p])) for tree in leaves] for p in SHAPES})
    params, _ = plugs.run(quantize.mixed(GRIDS, losses, budget=GRIDS[2]), WEIGHTS, GIVEN)
    assert sx.nbytes(params) == sx.nbytes(leaves[2])


def test_bad_factories():
    with pytest.raises(ValueError, match="budget must be one of"):
        quantize.mixed(GRIDS, quantize.output_kl(), budget=quantize.integer(5))
    with pytest.raises(ValueError, match="grids must hold"):
        quantize.mixed([], quantize.output_kl(), mean_bits=4)
    with pytest.raises(ValueError, match="probes"):
        quantize.hessian_trace(0)
    with pytest.raises(ValueError, match="sparsities must rise"):
        quantize.pruning_sensitivity((0.5, 0.3))
    with pytest.raises(ValueError, match="variance"):
        quantize.correlation(0.0)


def mlp(weights, x):
    return jnp.tanh(jnp.tanh(x @ weights["a"]) @ weights["b"])


X, Y = jnp.asarray(RNG.normal(size=(32, 8)), jnp.float32), jnp.asarray(RNG.integers(0, 9, 32), jnp.int32)
TWO = {p: WEIGHTS[p] for p in ("a", "b")}
OBJECTIVE = Objective(mlp, ((X[:20], Y[:20]), (X[20:], Y[20:])), plugs.cross_entropy)
BOTH = Evidence({p: LAYOUTS[p] for p in TWO}, key=jax.random.key(0), originals=TWO, objective=OBJECTIVE)


def loss(weights):
    return jnp.mean(plugs.cross_entropy(mlp(weights, X), Y))


def test_hutchinson_nears_the_exact_trace():
    hessian = jax.jit(jax.hessian(loss))(TWO)
    exact = {p: float(np.trace(np.asarray(hessian[p][p]).reshape(w.size, w.size))) for p, w in TWO.items()}
    found = hessian_traces(TWO, BOTH, probes=2000)
    for path, trace in exact.items():
        np.testing.assert_allclose(found[path], trace, rtol=0.06)
    assert max(exact.values()) > 2 * min(exact.values())  # the tolerance tells the two apart


def test_losses_by_formula():
    """Fisher, Taylor and KL against loops over examples in NumPy."""
    near = {p: [plugs.run(quantize.quantize(GRIDS[1]), TWO, BOTH)[0][p]] for p in TWO}
    rounded = {p: np.asarray(sx.dense(near[p][0]), np.float64) for p in TWO}
    one = jax.jit(jax.vmap(jax.grad(lambda w, x, y: plugs.cross_entropy(mlp(w, x[None]), y[None])[0]), (None, 0, 0)))
    gradients = {p: np.asarray(g, np.float64) for p, g in one(TWO, X, Y).items()}
    fisher, taylor, kl = (f().losses(TWO, near, BOTH) for f in (quantize.fisher, quantize.taylor, quantize.output_kl))
    for path, weight in TWO.items():
        w = np.asarray(weight, np.float64)
        error = (rounded[path] - w) ** 2
        np.testing.assert_allclose(fisher[path][0], np.sum(np.mean(gradients[path] ** 2, 0) * error) / 2, rtol=1e-4)
        flow = np.abs((gradients[path] * w).sum((1, 2))).mean()
        np.testing.assert_allclose(taylor[path][0], flow * error.sum() / (w**2).sum(), rtol=1e-4)
        p, q = (np.exp(jax.nn.log_softmax(mlp(ws, X))) for ws in (TWO, {**TWO, path: sx.dense(near[path][0])}))
        np.testing.assert_allclose(kl[path][0], np.sum(p * np.log(p / q), 1).mean(), rtol=1e-3)


def test_pruning_sensitivity_by_hand():
    """Without -1 the loss falls, which counts as no growth; without 2 and then 3 as well it has grown by 1 and by 4.

    The area is (0 + 1) / 8 + (1 + 4) / 8 = 3/4 for inputs of one, of which there is one; two are 2.5: 2 on average.
    """
    weights = {"w": jnp.array([[4.0], [-1.0], [3.0], [2.0]])}
    batches = ((jnp.ones((1, 4)), jnp.zeros(1, jnp.int32)), (jnp.full((2, 4), 2.5), jnp.zeros(2, jnp.int32)))
    objective = Objective(lambda w, x: x @ w["w"], batches, lambda logits, y: -logits[:, 0])
    given = Evidence({"w": LAYOUTS["a"]}, objective=objective)
    sensitivity = quantize.pruning_sensitivity((0.25, 0.5, 0.75))
    found = sensitivity.losses(weights, {"w": [weights["w"] / 2, jnp.zeros((4, 1)), weights["w"]]}, given)
    np.testing.assert_allclose(found["w"], [2 * 0.75 / 4, 2 * 0.75, 0], rtol=1e-6)


def test_the_flow_through_a_weight_is_that_of_its_input():
    """`sum_i x_i dL/dx_i` for the hidden layer, by its own derivative."""
    hidden = jnp.tanh(X @ TWO["a"])
    back = jax.vmap(jax.grad(lambda h, y: plugs.cross_entropy(jnp.tanh(h @ TWO["b"])[None], y[None])[0]))(hidden, Y)
    zero = {p: [jnp.zeros_like(w)] for p, w in TWO.items()}  # its relative error is 1
    found = quantize.taylor().losses(TWO, zero, BOTH)["b"][0]
    np.testing.assert_allclose(found, jnp.mean(jnp.abs(jnp.sum(hidden * back, 1))), rtol=1e-5)


def test_canonical_correlations():
    """Of samples by QR, which is another way; 1 under invertible maps of a side; those of unrelated variables are 0."""
    a = RNG.normal(size=(400, 3))
    b = np.concatenate([a[:, :2] + 0.5 * RNG.normal(size=(400, 2)), RNG.normal(size=(400, 1))], 1)
    a, b = a - a.mean(0), b - b.mean(0)
    expected = np.linalg.svd(np.linalg.qr(a)[0].T @ np.linalg.qr(b)[0], compute_uv=False).mean()
    turn = RNG.normal(size=(3, 3))
    for right in (b, b @ turn):
        found = mean_correlation(a.T @ a, a.T @ right, right.T @ right, 1.0)
        np.testing.assert_allclose(found, expected, rtol=1e-8)
    np.testing.assert_allclose(mean_correlation(a.T @ a, a.T @ a @ turn, turn.T @ a.T @ a @ turn, 1.0), 1.0)


def branches():
    """Three branches and a head; the third has the largest outputs, and an entry that spoils the step of the others."""
    rng = np.random.default_rng(11)
    shapes = {"a": (32, 8), "b": (32, 8), "c": (32, 8), "d": (8, 6)}
    drawn = {p: jnp.asarray(rng.normal(size=s) / np.sqrt(s[0]), jnp.float32) for p, s in shapes.items()}
    return {**drawn, "c": drawn["c"].at[0, 0].set(1.0)}


def residual(weights, x):
    gains = {"a": 0.1, "b": 0.1, "c": 3.0}
    total = sum(gain * jnp.tanh(x @ weights[p]) for p, gain in gains.items())
    return total @ weights["d"]


BOUNDS = dict.fromkeys(("fisher", "hessian_trace", "output_kl", "pruning_sensitivity", "taylor"), 0.7)


@pytest.mark.parametrize(("sensitivity", "bound"), [*BOUNDS.items(), ("correlation", 0.9)])
def test_better_than_one_width_at_its_bytes(sensitivity, bound):
    """All but the correlation, which sees one layer alone, know how much of the output is the third branch."""
    weights = branches()
    layouts = dict.fromkeys(weights, LAYOUTS["a"])
    x = jnp.asarray(np.random.default_rng(12).normal(size=(256, 32)), jnp.float32)
    y = jnp.argmax(residual(weights, x), axis=1)
    found = sx.collect(residual, weights, [x], ("moments", "means"))
    given = Evidence(
        layouts, jax.random.key(0), weights, objective=Objective(residual, ((x, y),), plugs.cross_entropy), **found
    )
    grids = [quantize.integer(bits, channel=False) for bits in (2, 3, 4, 6, 8)]
    uniform, _ = plugs.run(quantize.quantize(grids[1]), weights, given)
    chosen = getattr(quantize, sensitivity)()
    params, info = plugs.run(quantize.mixed(grids, chosen, budget=sx.nbytes(uniform)), weights, given)
    assert sx.nbytes(params) <= sx.nbytes(uniform)
    error = lambda p: float(jnp.mean(jnp.square(residual(sx.dense(p), x) - residual(weights, x))))  # noqa: E731
    assert error(params) < bound * error(uniform)
    assert info["c"]["bits"] > min(info["a"]["bits"], info["b"]["bits"])
