import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import spartax as sx
from spartax import attacks, prune, train
from spartax.arrays import scored
from spartax.prune.learnt_scores import magnitude_start
from spartax.records import Evidence, Layout
from tests import plugs
from tests.oracles import golden
from tests.oracles import prune as oracle

KEY = jax.random.key(0)
LAYOUT = Layout((0,), (1,))
GIVEN = Evidence({"w": LAYOUT})


def only_scores(path, x):
    del x
    return path.endswith("/scores")


def test_golden_scores_and_mask():
    """Card weights are [out, in] with fan_in 4; the kernel is their transpose."""
    kernel = jnp.asarray(golden.inputs()[0][:3, :4].T, jnp.float32)
    mask = [[1, 1, 0, 0], [0, 1, 0, 1], [0, 1, 0, 1]]
    params, _ = prune.learnt_scores(0.5).init({"w": kernel}, GIVEN)
    np.testing.assert_allclose(params["w"].scores[:, 0], [1.034333, 1.108946, 0.13245, -0.969588], atol=1e-6)
    np.testing.assert_array_equal(np.asarray(scored.kept(params["w"])).T, np.array(mask, bool))


def test_begins_as_layerwise_magnitude_pruning():
    weights, given = plugs.draw(), plugs.evidence()
    learnt, info = plugs.run(prune.learnt_scores(0.8), weights, given)
    plain, _ = plugs.run(prune.prune(prune.magnitude(), 0.8, prune.uniform()), weights, given)
    # in the stack every layer has its own maximum, which ranks it apart
    for path in ("dense", "conv", "outputs_first"):
        np.testing.assert_array_equal(plugs.dense(learnt[path]), plugs.dense(plain[path]))
        kept = round(0.2 * weights[path].size)
        size = weights[path].size
        assert info[path] == {
            "method": "learnt_scores",
            "kept": kept,
            "size": size,
            "sparsity": 1 - kept / size,
            "outputs_without_input": int(
                (~np.asarray(scored.kept(learnt[path])).any(given.layouts[path].inputs)).sum()
            ),
            "connected": True,
        }
    scores = np.asarray(learnt["stack"].scores)
    np.testing.assert_allclose(np.abs(scores).max((1, 2)), [np.sqrt(6 / 24)] * 2, rtol=1e-6)
    np.testing.assert_allclose(np.abs(learnt["conv"].scores).max(), np.sqrt(6 / 72), rtol=1e-6)


@pytest.mark.parametrize("absolute", [True, False])
def test_gradient_goes_straight_through(absolute):
    """By hand: removed entries learn too; the weight gets the gradient of what is kept."""
    weight, scores = jnp.array([1.0, -2.0, 3.0, -4.0]), jnp.array([-0.9, 0.1, 0.5, -0.2])
    g = np.array([1.0, 10.0, 100.0, 1000.0])
    mask = np.array([1, 0, 1, 0] if absolute else [0, 1, 1, 0])

    @jax.jit
    def total(leaf, keep):
        return jnp.sum(g * sx.dense(sx.Scored(leaf.weight, leaf.scores, keep, absolute)))

    leaf = sx.Scored(weight, scores, jnp.int32(2), absolute)
    found = jax.grad(total, allow_int=True)(leaf, jnp.int32(2))
    np.testing.assert_array_equal(sx.dense(leaf), weight * mask)
    np.testing.assert_array_equal(found.weight, g * mask)
    np.testing.assert_allclose(found.scores, g * weight * (np.sign(scores) if absolute else 1))
    np.testing.assert_array_equal(np.asarray(sx.dense(prune.finish({"w": leaf})["w"])), weight * mask)


def test_a_stack_with_its_own_counts_ranks_every_layer():
    weight, scores = plugs.draw()["stack"], jnp.asarray(np.random.default_rng(3).normal(size=(2, 24, 16)), jnp.float32)
    leaf = sx.Scored(weight, scores, jnp.array([5, 70]))
    for layer, keep in enumerate((5, 70)):
        mask = oracle.top(np.abs(np.asarray(scores[layer])), keep)
        np.testing.assert_array_equal(sx.dense(leaf)[layer], np.where(mask, weight[layer], 0))


def test_update_changes_the_count_and_nothing_else():
    params, state = prune.learnt_scores(0.5).init({"w": jnp.arange(1.0, 9).reshape(4, 2)}, GIVEN)
    moved = {"w": sx.Scored(params["w"].weight, params["w"].scores[::-1], params["w"].keep)}
    later, _, info = prune.learnt_scores(0.75).update(moved, state, GIVEN)
    np.testing.assert_array_equal(later["w"].scores, moved["w"].scores)
    np.testing.assert_array_equal(sx.dense(later["w"]), [[1, 2], [0, 0], [0, 0], [0, 0]])
    assert (info["w"]["kept"], int(later["w"].keep)) == (2, 2)
    assert jax.tree.structure(later) == jax.tree.structure(params)


def test_training_leaves_the_weights_alone():
    """One step of SGD on the scores, by hand, with weights and bias frozen."""
    kernel, x = jnp.array([[1.0, 0.2], [0.5, -2.0], [0.1, 0.3]]), jnp.array([[1.0, 2.0, 3.0]])
    params, _ = prune.learnt_scores(0.5).init({"w": kernel}, GIVEN)
    params["b"] = jnp.ones(2)
    apply = sx.compressed(lambda params, x: x @ params["w"] + params["b"])
    tx = optax.sgd(0.5)
    state = train.init_state(params, tx, rule=only_scores)
    assert [x.shape for x in jax.tree.leaves(state.trainable)] == [(3, 2)]
    before = np.asarray(params["w"].scores)
    step = train.make_step(train.clean(), tx, apply)
    after = step(state, KEY, x, jnp.array([1]))[0].variables
    logits = np.asarray(x @ sx.dense(params["w"]) + 1)[0]
    error = np.exp(logits) / np.exp(logits).sum() - [0, 1]
    gradient = np.sign(before) * np.outer(x[0], error) * np.asarray(kernel)
    np.testing.assert_allclose(after["w"].scores, before - 0.5 * gradient, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(after["w"].weight, kernel)
    np.testing.assert_array_equal(after["b"], np.ones(2))


def fragile_problem():
    """Two classes: 3 inputs tell them apart by 0.6 and have small weights, 9 by 0.1 and have large ones."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 256)
    gap = np.array([0.6] * 3 + [0.1] * 9)
    x = 0.5 + (y[:, None] - 0.5) * gap + rng.uniform(-0.02, 0.02, (256, 12))
    half = np.array([0.6] * 3 + [1.0] * 9)[:, None]
    return {"w": jnp.asarray(half * [-1, 1], jnp.float32)}, jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.int32)


def robust_accuracy(params, x, y, eps):
    """Exact for a linear network without bias: the worst image moves the margin by eps |w_1 - w_0|_1."""
    kernel = np.asarray(sx.dense(params["w"]))
    difference = kernel[:, 1] - kernel[:, 0]
    margin = (2 * np.asarray(y) - 1) * ((np.asarray(x) - 0.5) @ difference)
    return float(np.mean(margin - eps * np.abs(difference).sum() > 0))


def test_scores_learnt_under_pgd_keep_what_is_robust():
    params, x, y = fragile_problem()
    eps, sparsity = 0.1, 0.75
    magnitude, _ = plugs.run(prune.prune(prune.magnitude(), sparsity, prune.uniform()), params, GIVEN)
    start, _ = prune.learnt_scores(sparsity).init(params, GIVEN)
    apply = sx.compressed(lambda params, x: (x - 0.5) @ params["w"])
    tx = optax.adam(0.05)
    state = train.init_state(start, tx, rule=only_scores)
    step = train.make_step(train.pgd_at(attacks.pgd(eps, steps=2)), tx, apply)
    for number in range(60):
        state, _ = step(state, jax.random.fold_in(KEY, number), x, y)
    learnt = prune.finish(state.variables)
    assert isinstance(learnt["w"], sx.Masked)
    assert int(learnt["w"].mask.sum()) == int(magnitude["w"].mask.sum()) == 6
    assert robust_accuracy(start, x, y, eps) == robust_accuracy(magnitude, x, y, eps) == 0
    assert robust_accuracy(learnt, x, y, eps) == 1
    np.testing.assert_array_equal(np.asarray(learnt["w"].mask).any(1), np.arange(12) < 3)


def test_start_of_an_empty_layer_is_zero():
    np.testing.assert_array_equal(magnitude_start(jnp.zeros((3, 2)), LAYOUT), np.zeros((3, 2)))


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="sparsity must be in"):
        prune.learnt_scores(1.0)
    with pytest.raises(ValueError, match="w: no weight would be left"):
        prune.learnt_scores(0.99).init({"w": jnp.ones((4, 2))}, GIVEN)
    with pytest.raises(ValueError, match="w holds no learnt scores"):
        prune.learnt_scores(0.5).update({"w": jnp.ones((4, 2))}, {}, GIVEN)
    with pytest.raises(ValueError, match="rule trains no floating array"):
        train.init_state({"w": jnp.ones(3)}, optax.sgd(0.1), rule=only_scores)
