import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spartax as sx
from spartax import prune
from spartax.prune.criteria import synflow as file
from spartax.records import Evidence, Layout, Objective
from tests import plugs
from tests.oracles import golden
from tests.oracles import prune as oracle

NUMBERS = golden.NUMBERS["synflow"]


def evidence(logits, inputs, paths):
    """Evidence without any data."""
    objective = Objective(logits, (jax.ShapeDtypeStruct((7, inputs), jnp.float32),))
    return Evidence({path: Layout((0,), (1,)) for path in paths}, objective=objective)


def chain(weights, x):
    for w in weights.values():
        x = jax.nn.relu(x @ w)
    return x


def shares(score):
    """Scores as shares of the largest, from the ranks that a run without removals gives."""
    return {path: (np.asarray(s) - 0.5) / 0.49 for path, s in score.items()}


def flow(matrices, masks):
    """Scores of a chain of matrices: what comes in, times the weight, times what goes on."""
    sizes = [np.abs(w) * m for w, m in zip(matrices, masks)]
    forward = [np.ones(len(matrices[0]))]
    for w in sizes:
        forward.append(forward[-1] @ w)
    back = [np.ones(matrices[-1].shape[1])]
    for w in sizes[::-1]:
        back.append(w @ back[-1])
    return [forward[i][:, None] * w * back[len(sizes) - 1 - i] for i, w in enumerate(sizes)]


def by_rounds(matrices, sparsity, rounds):
    """The masks after the rounds, all in float64."""
    masks, size = [np.ones(w.shape, bool) for w in matrices], sum(w.size for w in matrices)
    for k in range(1, rounds + 1):
        scores = [np.where(m, s, -1) for s, m in zip(flow(matrices, masks), masks)]
        keep = round((1 - sparsity) ** (k / rounds) * size)
        masks = [oracle.top(s, n) for s, n in zip(scores, oracle.pooled_counts(scores, keep))]
    return masks


def test_golden_and_conservation():
    weights = {
        "a": jnp.sin(1.0 + jnp.arange(12.0)).reshape(3, 4),
        "b": jnp.cos(jnp.arange(8.0)).reshape(4, 2),
    }
    score = shares(prune.synflow(sparsity=0.0, rounds=1).score(weights, evidence(chain, 3, weights)))
    largest = max(s.max() for s in flow([np.asarray(w) for w in weights.values()], [1, 1]))
    np.testing.assert_allclose(score["a"] * largest, NUMBERS["score0"], rtol=1e-4)
    for s in score.values():
        np.testing.assert_allclose(s.sum() * largest, NUMBERS["R"], rtol=1e-4)


def test_golden_schedule():
    counts = file._schedule(1_000_000, 0.99, 5)
    np.testing.assert_array_equal(counts, np.round(1e6 * np.array(NUMBERS["keep_schedule_rho0.01_n5"])))


def test_rounds_against_a_slow_oracle_and_layers_that_one_round_empties():
    """A bottleneck of one unit next to wide layers: by magnitude and by one round it would be cut off."""
    rng = np.random.default_rng(0)
    matrices = [rng.normal(size=s) for s in ((6, 30), (30, 30), (30, 4))]
    matrices[1] *= 0.05
    weights = {f"l{i}": jnp.asarray(w, jnp.float32) for i, w in enumerate(matrices)}
    given = evidence(chain, 6, weights)
    kept = {}
    for name, criterion in {"rounds": prune.synflow(0.97, 20), "magnitude": prune.magnitude()}.items():
        transform = prune.prune(criterion, 0.97, prune.pooled(0), allow_empty=True)
        kept[name] = [np.asarray(w.mask) for w in plugs.run(transform, weights, given)[0].values()]
    for mask, expected in zip(kept["rounds"], by_rounds(matrices, 0.97, 20)):
        np.testing.assert_array_equal(mask, expected)
    through = {name: np.ones(6) @ masks[0] @ masks[1] @ masks[2] for name, masks in kept.items()}
    assert through["rounds"].sum() > 0
    assert through["magnitude"].sum() == 0


def test_the_order_serves_smaller_sparsities_too():
    rng = np.random.default_rng(1)
    matrices = [rng.normal(size=s) for s in ((4, 8), (8, 4))]
    weights = {f"l{i}": jnp.asarray(w, jnp.float32) for i, w in enumerate(matrices)}
    score = prune.synflow(0.9, 10).score(weights, evidence(chain, 4, weights))
    half = oracle.pooled_counts([np.asarray(s) for s in score.values()], round(0.1**0.3 * 64))
    expected = by_rounds(matrices, 1 - 0.1**0.3, 3)
    for s, count, mask in zip(score.values(), half, expected):
        np.testing.assert_array_equal(oracle.top(np.asarray(s), count), mask)


def test_a_deep_network_beyond_the_range_of_floats_and_its_residual_branches():
    """The product of the layers is 1e48; a branch around each second layer changes the ranking with the size."""

    def residual(weights, x):
        for i, w in enumerate(weights.values()):
            x = jax.nn.relu(x @ w) + (x if i % 2 else 0)
        return x

    rng = np.random.default_rng(2)
    matrices = [rng.uniform(0.1, 1.0, size=(3, 3)) for _ in range(4)]
    ranked = {}
    for size in (1.0, 1e12):
        weights = {f"l{i}": jnp.asarray(size * w, jnp.float32) for i, w in enumerate(matrices)}
        score = shares(prune.synflow(0.0, 1).score(weights, evidence(residual, 3, weights)))
        sizes = [size * w + np.eye(3) * (i % 2) for i, w in enumerate(matrices)]
        expected = [f * size * w / s for f, w, s in zip(flow(sizes, [1] * 4), matrices, sizes)]
        most = max(e.max() for e in expected)
        for found, e in zip(score.values(), expected):
            np.testing.assert_allclose(found, e / most, rtol=1e-3, atol=1e-5)
        ranked[size] = np.concatenate([s.ravel() for s in score.values()])
    assert np.abs(ranked[1.0] - ranked[1e12]).max() > 0.05


def test_biases_and_norms_are_positive_and_no_values_are_needed():
    """A negative scale would switch every unit off, a bias adds nothing to the flow."""

    def apply_fn(params, x):
        return jax.nn.relu(x @ params["w"] * params["scale"] + params["bias"]) @ params["v"]

    rng = np.random.default_rng(3)
    params = {"w": jnp.asarray(rng.normal(size=(3, 4)), jnp.float32), "scale": -jnp.ones(4), "bias": -9.0 * jnp.ones(4)}
    params["v"] = jnp.asarray(rng.normal(size=(4, 2)), jnp.float32)
    transform = prune.prune(prune.synflow(0.5, 4), 0.5, prune.pooled(0))
    out = sx.compress(apply_fn, params, transform, batches=[jax.ShapeDtypeStruct((5, 3), jnp.float32)])
    matrices = [np.asarray(params[p]) for p in ("v", "w")]
    expected = by_rounds(matrices[::-1], 0.5, 4)
    np.testing.assert_array_equal(out.params["w"].mask, expected[0])
    np.testing.assert_array_equal(out.params["v"].mask, expected[1])


def test_a_network_without_flow_is_named():
    weights = {"w": jnp.ones((3, 3))}
    with pytest.raises(ValueError, match="synflow: the sum of the logits"):
        prune.synflow().score(weights, evidence(lambda w, x: 0 * x @ w["w"], 3, weights))
    with pytest.raises(ValueError, match="rounds must be in"):
        prune.synflow(rounds=200)


def test_the_image_keeps_its_size_while_the_flow_is_scaled():
    """A flow of 1e20 through units that a smaller image would not switch on, as the means of batch norms do."""
    matrices = [np.abs(np.random.default_rng(seed).normal(size=(6, 6))) for seed in (0, 1)]
    weights = {"a": jnp.asarray(1e10 * matrices[0], jnp.float32), "b": jnp.asarray(1e10 * matrices[1], jnp.float32)}
    logits = lambda weights, x: jax.nn.relu(x @ weights["a"] - 1e9) @ weights["b"]  # noqa: E731
    order = prune.synflow(0.75, rounds=5).score(weights, evidence(logits, 6, weights))
    kept = by_rounds(matrices, 0.75, 5)
    least = min(float(np.asarray(s)[m].min()) for s, m in zip(order.values(), kept))
    assert [(np.asarray(s) >= least).tolist() for s in order.values()] == [m.tolist() for m in kept]
