"""LAPP: gates by hand, the derivative of the multiply-adds, and a toy that reaches its target and is cut."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import spartax as sx
from spartax import models, prune, train
from spartax.arrays.thresholded import gates
from spartax.records import Evidence, Layout, Objective
from spartax.train.losses.lapp import macs_left
from tests.prune import channels

KEY = jax.random.key(0)


def mlp(params, x):
    return jax.nn.relu(jax.nn.relu(x @ params["first"]) @ params["second"]) @ params["third"]


def problem():
    rng = np.random.default_rng(0)
    shapes = {"first": (6, 20), "second": (20, 30), "third": (30, 3)}
    params = {p: jnp.asarray(rng.normal(size=s) / np.sqrt(s[0]), jnp.float32) for p, s in shapes.items()}
    x = jnp.asarray(rng.normal(size=(32, 6)), jnp.float32)
    return params, x, jnp.asarray((x.sum(1) > 0).astype(np.int32) + (np.asarray(x)[:, 0] > 0))


def begun(bypass=0.2):
    params, x, _ = problem()
    return train.begin(prune.lapp(bypass=bypass), mlp, params, x, KEY, rule=lambda path, w: path != "third")


def test_gates_and_their_derivative_by_hand():
    """Norms 1, 2, 3 over their mean: 0.5, 1, 1.5."""
    weight = jnp.array([[1.0, 0, 3], [0, 2, 0]])
    leaf = sx.Thresholded(weight, jnp.float32(0.9), -1, 1, 0.5)
    np.testing.assert_array_equal(sx.dense(leaf), [[0, 0, 3], [0, 2, 0]])
    slope = jax.grad(lambda t: jnp.sum(sx.dense(sx.Thresholded(weight, t, -1, 1, 0.5))))(jnp.float32(0.9))
    s = 1 / (1 + np.exp(-(np.array([0.5, 1, 1.5]) - 0.9) / 0.5))
    np.testing.assert_allclose(slope, -np.sum(np.array([1, 2, 3]) * s * (1 - s) / 0.5), rtol=1e-5)
    by_weight = jax.grad(lambda w: jnp.sum(sx.dense(sx.Thresholded(w, jnp.float32(0.9), -1, 1, 0.5))))(weight)
    np.testing.assert_array_equal(by_weight, [[0, 1, 1], [0, 1, 1]])
    np.testing.assert_array_equal(gates(sx.Thresholded(weight, jnp.float32(9.0), -1, 2)), [0, 1, 1])  # the least


def test_training_starts_unchanged_bypass_included():
    variables, method = begun()
    params, x, _ = problem()
    assert set(method.layouts) == {"first", "second"}
    assert isinstance(variables["second"].weight, sx.Sum)
    np.testing.assert_allclose(sx.compressed(mlp)(variables, x), mlp(params, x), rtol=1e-5, atol=1e-6)


def test_the_report_tells_what_is_off():
    """Of the norms 1, 2, 3 over their mean 2 the first is under its threshold."""
    params = {"w": sx.Thresholded(jnp.array([[1.0, 0, 3], [0, 2, 0]]), jnp.float32(0.9), -1)}
    given = Evidence({"w": Layout((0,), (1,))}, objective=Objective(lambda w, x: x @ w["w"], (jnp.ones((1, 2)),)))
    _, _, info = prune.lapp().update(params, {}, given)
    assert info["w"].pop("threshold") == pytest.approx(0.9)
    assert info["w"] == {
        "method": "lapp",
        "kept": 4,
        "size": 6,
        "sparsity": pytest.approx(1 / 3),
        "outputs_without_input": 1,
        "connected": True,
        "warnings": ["nearly empty: 4 of 6 entries are left"],
        "channels": 2,
    }


def test_multiply_adds_by_hand_and_their_sign():
    variables, _ = begun(0.0)
    _, x, _ = problem()
    left = macs_left(mlp, variables, x)
    np.testing.assert_allclose(left(variables), 1)

    def at(first, second):
        put = {"first": first, "second": second}
        return {p: sx.Thresholded(w.weight, put[p], -1, 1) if p in put else w for p, w in variables.items()}

    some = at(jnp.float32(1.0), jnp.float32(0.9))
    a, b = (int(gates(some[p]).sum()) for p in ("first", "second"))
    assert 0 < a < 20
    assert 0 < b < 30
    np.testing.assert_allclose(left(some), (6 * a + a * b + b * 3) / (6 * 20 + 20 * 30 + 30 * 3), rtol=1e-6)
    slopes = jax.jit(jax.grad(lambda f, s: left(at(f, s)), (0, 1)))(jnp.float32(1.0), jnp.float32(0.9))
    assert all(float(slope) < 0 for slope in slopes)


def test_a_toy_reaches_its_target_and_cut_equals_masked():
    variables, _ = begun()
    _, x, y = problem()
    apply = sx.compressed(mlp)
    rates = optax.partition(
        {"weight": optax.sgd(0.05), "threshold": optax.sgd(0.002)},
        lambda tree: jax.tree_util.tree_map_with_path(
            lambda keys, _: "threshold" if "threshold" in str(keys[-1]) else "weight", tree
        ),
    )
    loss = train.lapp(train.clean(), mlp, variables, x, 0.5)
    step, state = train.make_step(loss, rates, apply), train.init_state(variables, rates)
    left = jax.jit(macs_left(mlp, variables, x))
    found = [1.0]
    while found[-1] > 0.5 and len(found) < 400:
        state, _ = step(state, KEY, x, y)
        found.append(float(left(state.variables)))
    assert 0.44 < found[-1] <= 0.5  # one channel of the second layer is 3 %
    masked = prune.finish(state.variables)
    groups = sx.groups(mlp, sx.dense(masked), x)
    masked = prune.mask_groups(groups, masked, prune.dead_channels(groups, masked))
    small = prune.shrink(mlp, masked, x)
    np.testing.assert_allclose(small.report.macs[1] / small.report.macs[0], found[-1], rtol=1e-5)
    np.testing.assert_allclose(small.apply(small.params, x), apply(state.variables, x), rtol=1e-4, atol=1e-5)


class Normalized(nn.Module):
    """Two convolutions of 8 and 6 channels with batch normalization, and a head."""

    @nn.compact
    def __call__(self, x, train=False):
        for width in (8, 6):
            x = nn.Conv(width, (3, 3), use_bias=False)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
        return nn.Dense(3)(x.mean((1, 2)))


def test_channels_with_batch_normalization_go_with_their_bypass():
    """Two steps of training; then thresholds put between the norms leave 5 and 4 channels."""
    module, x, y = Normalized(), channels.images(4, 4, 4, 2), jnp.arange(4) % 3
    apply, dense = models.eval_apply(module), channels.variables(module, x)
    variables, method = train.begin(prune.lapp(bypass=0.2), apply, dense, x, KEY, rule=lambda path, w: "Conv" in path)
    loss = train.lapp(train.clean(), apply, variables, x, 0.5)
    forward = sx.compressed(lambda v, x: module.apply(v, x, train=True, mutable=["batch_stats"]))
    step = train.make_step(loss, optax.sgd(0.05), sx.compressed(apply), forward)
    state = train.init_state(variables, optax.sgd(0.05), method=method)
    for _ in range(2):
        state, _ = step(state, KEY, x, y)
    params = state.variables["params"]
    levels = {}
    for name, left in (("Conv_0", 5), ("Conv_1", 4)):
        leaf = params[name]["kernel"]
        assert float(leaf.threshold) != float(variables["params"][name]["kernel"].threshold)
        assert np.abs(leaf.weight.terms[1].right).max() > 0  # the bypass has learnt
        rows = np.sort(np.linalg.norm(np.asarray(sx.dense(leaf.weight)).reshape(-1, leaf.shape[-1]), axis=0))[::-1]
        levels[name] = jnp.float32((rows[left - 1] + rows[left]) / 2 / rows.mean())
        params = {**params, name: {"kernel": dataclasses.replace(leaf, threshold=levels[name])}}
    trained = {**state.variables, "params": params}
    by_hand = (16 * 9 * 2 * 5 + 16 * 9 * 5 * 4 + 4 * 3) / (16 * 9 * 2 * 8 + 16 * 9 * 8 * 6 + 6 * 3)
    np.testing.assert_allclose(macs_left(apply, trained, x)(trained), by_hand, rtol=1e-6)
    fixed = prune.finish(trained)
    off = ~np.asarray(gates(params["Conv_0"]["kernel"]), bool)
    assert not np.asarray(sx.dense(fixed["params"]["Conv_0"]["kernel"]))[..., off].any()
    groups = sx.groups(apply, sx.dense(fixed), x)
    masked = prune.mask_groups(groups, fixed, prune.dead_channels(groups, fixed))
    small = prune.shrink(apply, masked, x)
    assert small.params["params"]["Conv_1"]["kernel"].shape == (3, 3, 5, 4)
    np.testing.assert_allclose(small.report.macs[1] / small.report.macs[0], by_hand, rtol=1e-6)
    np.testing.assert_allclose(small.apply(small.params, x), sx.compressed(apply)(masked, x), rtol=1e-4, atol=1e-5)


def test_bad_arguments():
    variables, _ = begun()
    params, x, _ = problem()
    with pytest.raises(ValueError, match="target must be in"):
        train.lapp(train.clean(), mlp, variables, x, 0.0)
    with pytest.raises(ValueError, match="no Thresholded weight"):
        train.lapp(train.clean(), mlp, params, x, 0.5)
    with pytest.raises(ValueError, match="bypass must be in"):
        prune.lapp(bypass=1.0)
    with pytest.raises(ValueError, match="temperature must be in"):
        prune.lapp(temperature=0.0)
    with pytest.raises(ValueError, match="first: lapp trains plain arrays; got a Thresholded"):
        train.begin(prune.lapp(), mlp, variables, x, KEY)
