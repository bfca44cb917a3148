"""The bias of each weight is read off the program, and only where it is one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spartax as sx
from spartax import prune
from spartax.program import biases
from tests import leaves

pytestmark = pytest.mark.core
X = leaves.normal(4, 5, 5, 3, seed=1)


def test_linen_and_equinox_networks():
    import equinox as eqx
    import flax.linen as nn

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.Conv(4, (3, 3))(x))
            x = nn.BatchNorm(use_running_average=True)(nn.Conv(6, (3, 3), use_bias=False)(x))
            return nn.Dense(10)(jnp.mean(x, (1, 2)))

    variables = Net().init(jax.random.key(0), X)
    assert biases(Net().apply, variables, X) == {
        "params/Conv_0/kernel": "params/Conv_0/bias",
        "params/Dense_0/kernel": "params/Dense_0/bias",
    }
    linear = eqx.nn.Linear(3, 3, key=jax.random.key(0))
    arrays, static = eqx.partition(linear, eqx.is_array)
    apply = lambda p, x: jax.vmap(eqx.combine(p, static))(x)  # noqa: E731
    assert biases(apply, arrays, X[:, 0, 0]) == {"weight": "bias"}


def test_a_vector_added_to_rows_that_are_looked_up():
    params = {"table": leaves.normal(7, 3), "shift": leaves.normal(3), "other": leaves.normal(3)}
    ids = jnp.array([[3, 0], [1, 6]])
    once = lambda p, ids: jnp.tanh(p["table"][ids] + p["shift"])  # noqa: E731
    twice = lambda p, ids: once(p, ids) * (p["table"][ids[::-1]] + p["other"])  # noqa: E731
    tied = lambda p, ids: once(p, ids) @ p["table"].T  # noqa: E731  its means are those of the contraction
    assert biases(once, params, ids) == {"table": "shift"}
    assert biases(twice, params, ids) == biases(tied, params, ids) == {}


def test_what_is_no_bias_of_that_weight():
    p = {"w": leaves.normal(3, 3), "v": leaves.normal(3, 3, seed=2), "b": leaves.normal(3)}
    x = X[:, 0, 0]
    assert biases(lambda p, x: x @ p["w"] + p["b"], p, x) == {"w": "b"}
    assert biases(lambda p, x: p["b"] + (x @ p["w"]).astype(jnp.bfloat16), p, x) == {"w": "b"}
    assert biases(lambda p, x: x @ p["w"] + p["b"][:, None], p, X[:3, 0, 0]) == {}  # along the batch
    assert biases(lambda p, x: (x @ p["w"]) * p["b"], p, x) == {}
    assert biases(lambda p, x: (y := x @ p["w"]) + p["b"] + jnp.sin(y), p, x) == {}  # the output goes elsewhere too
    assert biases(lambda p, x: (x @ p["w"] + p["b"]) @ p["w"], p, x) == {}  # a weight used twice
    assert biases(lambda p, x: x @ p["w"] + x @ p["v"], p, x) == {}


def test_correction_makes_every_output_right_on_average():
    def network(p, x):
        numbers = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(x, p["conv"], (1, 1), "VALID", dimension_numbers=numbers) + p["bias"]
        return x.reshape(len(x), -1) @ p["dense"]

    params = {
        "conv": leaves.normal(2, 2, 3, 4),
        "bias": leaves.normal(4, seed=3),
        "dense": leaves.normal(64, 5, seed=4),
    }
    x = X + 1.0
    cut = prune.prune(prune.magnitude(), 0.7, prune.uniform())
    before = sx.compress(network, params, cut, batches=[x])
    out = sx.compress(network, params, cut, sx.correct_bias(), batches=[x])
    assert out.info["conv"]["steps"][1]["bias"] == "bias"
    assert "no bias" in out.info["dense"]["steps"][1]["skipped"]
    eye = {**params, "dense": jnp.eye(64)}
    mean = lambda p: np.asarray(network(sx.dense({**p, "dense": eye["dense"]}), x)).reshape(-1, 4).mean(0)  # noqa: E731
    np.testing.assert_allclose(mean(out.params), mean(params), atol=1e-4)
    assert np.abs(mean(before.params) - mean(params)).max() > 0.1


def test_correcting_again_does_not_add_up():
    params = {"w": leaves.normal(3, 3), "b": leaves.normal(3)}
    apply = lambda p, x: x @ p["w"] + p["b"]  # noqa: E731
    transform = sx.chain(prune.prune(prune.magnitude(), 0.5), sx.correct_bias())
    given = sx.compress(apply, params, transform, batches=[X[:, 0, 0]])
    first = np.asarray(given.params["b"])
    evidence_like = sx.collect(apply, params, [X[:, 0, 0]], ("means",))["means"]
    expected = params["b"] + evidence_like["w"] @ (params["w"] - sx.dense(given.params["w"]))
    np.testing.assert_allclose(first, expected, atol=1e-6)
