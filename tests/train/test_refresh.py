"""Pruning inside the training loop."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import spartax as sx
from spartax import prune, quantize, train
from spartax.chain import chain
from spartax.train.averages import restart_averages
from spartax.train.refresh import restart_moments

KEY = jax.random.key(0)


def mlp(params, x):
    return jax.nn.relu(x @ params["first"]) @ params["second"] + params["bias"]


def cross_entropy(logits, y):
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], axis=1)[:, 0]


def problem():
    rng = np.random.default_rng(0)
    params = {"first": rng.normal(size=(6, 12)), "second": rng.normal(size=(12, 3)), "bias": np.zeros(3)}
    x = rng.normal(size=(16, 6)).astype(np.float32)
    return jax.tree.map(jnp.float32, params), x, (x.sum(1) > 0).astype(np.int32) + (x[:, 0] > 0)


def counted(loss):
    """The loss, and how often it was traced."""
    traces = []

    def traced(network, key, x, y):
        traces.append(1)
        return loss(network, key, x, y)

    return traced, traces


def start(transform, tx, loss=None, params=None):
    """(step, state, refresh) of a run on the problem."""
    apply, loss = sx.compressed(mlp), loss or train.clean()
    params = problem()[0] if params is None else params
    variables, method = train.begin(transform, apply, params, problem()[1], KEY)
    state = train.init_state(variables, tx, method=method)
    return train.make_step(loss, tx, apply), state, train.make_refresh(transform, loss, tx, apply)


def run(step, state, refresh, count):
    return train.fit(step, state, [problem()[1:]] * count, KEY, refresh=refresh, progress=False)[0]


def zeros(state):
    return {p: int((np.asarray(state.variables[p].mask) == 0).sum()) for p in ("first", "second")}


def test_masked_weights_stay_out_of_a_thousand_steps_compiled_once():
    """Momentum and weight decay move what lies under the masks; the function does not see it."""
    transform = prune.prune(prune.magnitude(), 0.75, prune.uniform(), schedule=prune.cubic(100, 700, every=100))
    loss, traces = counted(train.clean())
    step, state, refresh = start(transform, optax.chain(optax.add_decayed_weights(0.01), optax.sgd(0.05, 0.9)), loss)
    state = run(step, state, refresh, 500)
    done = prune.cubic(100, 700, every=100).sparsity(0.75, 499)
    assert zeros(state) == {"first": 72 - round((1 - done) * 72), "second": 36 - round((1 - done) * 36)}
    state = run(step, state, refresh, 500)
    assert zeros(state) == {"first": 54, "second": 27}
    assert len(traces) == 1
    x = problem()[1]
    params = state.variables
    other = {p: sx.Masked(jnp.where(w.mask, w.weight, 1e9), w.mask) if p != "bias" else w for p, w in params.items()}
    np.testing.assert_array_equal(sx.compressed(mlp)(params, x), sx.compressed(mlp)(other, x))
    removed = ~np.asarray(params["first"].mask)
    assert np.all(np.asarray(params["first"].weight)[removed] != 0)  # it is the mask that keeps them out
    assert state.method.info["first"]["kept"] == 18


def test_rigl_grows_by_the_gradient_of_the_dense_weight_and_restarts_moments():
    transform, tx = prune.rigl(0.5, prune.uniform(), end=100, every=10), optax.adam(1e-2)
    step, state, refresh = start(transform, tx)
    state = run(step, state, None, 10)
    old = state.variables
    _, x, y = problem()
    gradient = jax.grad(lambda p: jnp.mean(-jax.nn.log_softmax(mlp(p, x))[np.arange(len(y)), y]))(sx.dense(old))
    size, mask = np.abs(sx.dense(old["first"])), np.array(old["first"].mask)
    count = int(0.15 * (1 + np.cos(np.pi / 10)) * 36)
    kept = np.zeros(72, bool)
    kept[np.argsort(-np.where(mask, size, -1), axis=None, kind="stable")[: 36 - count]] = True
    wanted = np.where(kept, -1, np.abs(np.ravel(gradient["first"])))
    kept[np.argsort(-wanted, kind="stable")[:count]] = True
    before = jax.tree.map(np.array, state.opt_state[0])
    new = refresh.update(state, KEY, x, y)
    np.testing.assert_array_equal(new.variables["first"].mask, kept.reshape(6, 12))
    fresh = kept.reshape(6, 12) & ~mask
    assert fresh.sum() > 3
    np.testing.assert_array_equal(np.asarray(new.variables["first"].weight)[fresh], 0)
    for moment in ("mu", "nu"):
        was, now = (np.asarray(getattr(s, moment)["first"].weight) for s in (before, new.opt_state[0]))
        np.testing.assert_array_equal(now, np.where(fresh, 0, was))
    np.testing.assert_array_equal(new.opt_state[0].mu["bias"], before.mu["bias"])
    assert int(new.opt_state[0].count) == 10


def test_the_dense_gradient_under_awp_is_that_of_the_weights_it_moves():
    """Weights move under their masks, `gamma` times their length; the gradient there reaches what is removed."""
    seen, transform = {}, prune.rigl(0.5, prune.uniform(), end=100, every=1)

    def update(params, state, evidence):
        seen.update(evidence.grads)
        return transform.update(params, state, evidence)

    loss = train.awp(train.clean(), gamma=0.2)
    step, state, refresh = start(transform._replace(update=update), optax.sgd(0.1), loss)
    old = jax.tree.map(np.array, state.variables)
    run(step, state, refresh, 2)
    seen.clear()
    _, x, y = problem()
    refresh.update(start(transform, optax.sgd(0.1), loss)[1], KEY, x, y)
    masks, kept = {p: old[p].mask for p in ("first", "second")}, sx.dense(old)
    slope = jax.grad(lambda params: cross_entropy(mlp(params, x), y).mean())
    rise, moved = slope(kept), dict(kept)
    for path, mask in masks.items():
        towards = rise[path] * mask
        moved[path] = kept[path] + 0.2 * np.linalg.norm(kept[path]) * towards / np.linalg.norm(towards)
    for path, mask in masks.items():
        want = slope(moved)[path]
        np.testing.assert_allclose(seen[path], want, rtol=1e-4, atol=1e-6)
        assert np.abs(want - rise[path])[~mask].max() > 1e-2
        assert np.abs(old[path].weight)[~mask].max() > 0.1  # which do not count in the length


def test_moments_and_averages_restart_where_only_a_part_of_the_params_has_them():
    params = {"kernel": jnp.full((2, 2), 5.0), "bias": jnp.full(2, 5.0)}
    label = lambda path, _: "biases" if "bias" in jax.tree_util.keystr(path) else "kernels"  # noqa: E731
    split = {"kernels": optax.chain(optax.scale_by_adam(), train.ema()), "biases": optax.sgd(1.0, 0.9)}
    tx = optax.partition(split, lambda params: jax.tree_util.tree_map_with_path(label, params))
    state = jax.tree.map(jnp.ones_like, tx.init(params))
    grown = {"kernel": jnp.array([[True, False], [False, False]]), "bias": jnp.array([False, True])}
    new = restart_averages(restart_moments(tx, state, grown), grown, params)
    assert jax.tree.structure(new) == jax.tree.structure(state)
    adam, ema = new.inner_states["kernels"].inner_state
    np.testing.assert_array_equal([adam.mu["kernel"], adam.nu["kernel"]], [[[0, 1], [1, 1]]] * 2)
    np.testing.assert_array_equal(ema.average["kernel"], [[5, 1], [1, 1]])
    np.testing.assert_array_equal(new.inner_states["biases"].inner_state[0].trace["bias"], [1, 0])
    assert [int(adam.count), int(ema.count)] == [1, 1]


def test_rigl_trains_with_a_step_compiled_once_and_exact_counts():
    loss, traces = counted(train.clean())
    step, state, refresh = start(prune.rigl(0.75, end=90, every=10), optax.sgd(0.1, 0.9), loss)
    masks = np.asarray(state.variables["first"].mask)
    kept = dict(state.method.state)
    first = float(step(start(prune.rigl(0.75, end=90), optax.sgd(0.1, 0.9))[1], KEY, *problem()[1:])[1])
    state = run(step, state, refresh, 100)
    assert {p: int(state.variables[p].mask.sum()) for p in kept} == kept
    assert np.any(masks != state.variables["first"].mask)
    assert float(step(state, KEY, *problem()[1:])[1]) < 0.6 * first
    assert len(traces) == 2  # the step and the dense gradient


def test_a_continued_run_is_one_long_run():
    step, state, refresh = start(prune.sparse_evolution(0.5, end=90, every=7), optax.sgd(0.1))
    whole = run(step, state, refresh, 30)
    halves = run(step, start(prune.sparse_evolution(0.5, end=90, every=7), optax.sgd(0.1))[1], refresh, 14)
    halves = run(step, halves, refresh, 16)
    jax.tree.map(np.testing.assert_array_equal, halves.variables, whole.variables)


def test_of_a_chain_only_what_is_due_is_refreshed():
    """Pruning at step 3; codes are fixed at the start."""
    transform = chain(
        prune.prune(prune.magnitude(), 0.5, schedule=prune.one_shot(3)), quantize.quantize(quantize.integer(8))
    )
    step, state, refresh = start(transform, optax.sgd(0.0))
    codes = np.array(jax.tree.leaves(state.variables["first"].weight)[0])
    state = run(step, state, refresh, 3)
    assert state.variables["first"].mask.all()
    state = run(step, state, refresh, 1)
    assert sum(zeros(state).values()) == 54
    np.testing.assert_array_equal(jax.tree.leaves(state.variables["first"].weight)[0], codes)
    assert state.method.info["first"]["steps"][0]["kept"] < 72


def test_criteria_that_measure_get_the_batch():
    """A stand-in for criteria that look at activations: keep the inputs with the largest moments."""
    seen = {}

    def score(weights, evidence):
        seen.update(evidence.moments)
        return {p: jnp.diagonal(evidence.moments[p])[:, None] + 0 * w for p, w in weights.items()}

    criterion = prune.magnitude()._replace(needs=frozenset({"moments"}), score=score)
    step, state, refresh = start(prune.prune(criterion, 0.5, prune.uniform()), optax.sgd(0.0))
    state = run(step, state, refresh, 1)
    x = problem()[1]
    np.testing.assert_allclose(seen["first"], x.T @ x / len(x), rtol=1e-4, atol=1e-5)
    rows = np.argsort(-(x**2).sum(0))[:3]
    assert sorted(np.flatnonzero(np.asarray(state.variables["first"].mask).all(1))) == sorted(rows)


@pytest.mark.parametrize("criterion", [prune.taylor, prune.wanda])
def test_later_refreshes_compile_nothing(criterion):
    """Weights, masks, biases, batches and the sparsity are new each time; the bias is not selected, but it counts."""
    schedule = prune.cubic(0, 4, every=1)
    transform, tx = prune.prune(criterion(), 0.8, schedule=schedule, allow_empty=True), optax.sgd(0.1)
    variables, method = train.begin(transform, mlp, *problem()[:2], KEY)
    refresh = train.make_refresh(transform, train.clean(), tx, sx.compressed(mlp), judge=cross_entropy)
    state, compiled, removed = train.init_state(variables, tx, method=method), [], []
    count = lambda event, _, **__: compiled.append(event) if "backend_compile" in event else None  # noqa: E731
    for number in range(1, 4):
        state = state._replace(step=jnp.int32(number), trainable={**state.trainable, "bias": jnp.arange(3.0) * number})
        x, y = problem()[1:]
        if number == 3:
            jax.monitoring.register_event_duration_secs_listener(count)
        try:
            state = refresh.update(state, KEY, x * number, y)
        finally:
            if number == 3:
                jax.monitoring.unregister_event_duration_listener(count)
        removed.append(sum(zeros(state).values()))
    assert removed[0] < removed[1] < removed[2]
    assert compiled == []


def test_collections_and_a_method_that_is_missing():
    params, x, y = problem()
    variables = {"params": params, "batch_stats": {"mean": jnp.zeros(6)}}
    apply = sx.compressed(lambda v, x: mlp(v["params"], x - v["batch_stats"]["mean"]))
    transform, tx = prune.prune(prune.magnitude(), 0.5), optax.sgd(0.1)
    wrapped, method = train.begin(transform, apply, variables, x, KEY)
    assert set(method.layouts) == {"params/first", "params/second"}
    refresh = train.make_refresh(transform, train.clean(), tx, apply)
    state = refresh.update(train.init_state(wrapped, tx, method=method), KEY, x, y)
    assert (
        int(sum(w.mask.sum() for w in (state.variables["params"]["first"], state.variables["params"]["second"]))) == 54
    )
    np.testing.assert_array_equal(state.variables["batch_stats"]["mean"], np.zeros(6))
    with pytest.raises(ValueError, match=r"state.method must be the Method that train.begin gave; got NoneType"):
        refresh.update(train.init_state(wrapped, tx), KEY, x, y)
