"""Scaled channels do not change the network; what would change it is refused, and the reason is told."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spartax import tree
from spartax.program import scalings
from tests import leaves

pytestmark = pytest.mark.core
X = leaves.normal(3, 8, 8, 4, seed=1)


def scaled(params, found, seed=0):
    """The params under random factors from 0.2 to 5, the channels of every pair at once."""
    rng = np.random.default_rng(seed)
    new = {path: np.asarray(w) for path, w in tree.weights(params).items()}
    for pair in found.pairs.values():
        s = np.exp(rng.uniform(-1.6, 1.6, pair.channels)).astype(np.float32)
        for path, index in pair.divided.items():
            new[path] = new[path] / s[index]
        for path, index in pair.multiplied.items():
            new[path] = new[path] * s[index]
    return tree.replace(params, new)


def drawn(module, x):
    """Variables of which every array is random: norms and biases too."""
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), x))
    rng = np.random.default_rng(3)
    draw = lambda path, s: rng.uniform(0.5, 1.5, s.shape) if "var" in path else rng.normal(0, 0.5, s.shape)  # noqa: E731
    return tree.replace(variables, {p: draw(p, s).astype(np.float32) for p, s in tree.weights(variables).items()})


def holds(apply_fn, params, x):
    """The pairs that were found; random factors leave the outputs alone."""
    found = scalings(apply_fn, params, x)
    run = jax.jit(apply_fn)
    expected = run(params, x)
    np.testing.assert_allclose(run(scaled(params, found), x), expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    contracted = set(found.refused) | {path for pair in found.pairs.values() for path in pair.multiplied}
    assert not set(found.refused) & {path for pair in found.pairs.values() for path in pair.multiplied}
    return found, contracted


def shown(found):
    return {root: (set(p.divided) - {root}, set(p.multiplied)) for root, p in found.pairs.items()}


class Block(nn.Module):
    """Basic block of a ResNet."""

    @nn.compact
    def __call__(self, x):
        norm = lambda: nn.BatchNorm(use_running_average=True)  # noqa: E731
        y = nn.relu(norm()(nn.Conv(x.shape[-1], (3, 3), use_bias=False)(x)))
        return nn.relu(x + norm()(nn.Conv(x.shape[-1], (3, 3), use_bias=False)(y)))


def test_multilayer_perceptron():
    params = {"a": leaves.normal(4, 6), "b": leaves.normal(6), "c": leaves.normal(5, 6, seed=2), "d": leaves.normal(5)}
    params |= {"e": leaves.normal(5, 3, seed=4)}

    def network(p, x):
        hidden = jnp.where((h := x @ p["a"] + p["b"]) > 0, h, 0.1 * h)
        return jnp.maximum(hidden @ p["c"].T + p["d"], 0) @ p["e"]

    found, contracted = holds(network, params, X[0, 0])
    assert shown(found) == {"a": ({"b"}, {"c"}), "c": ({"d"}, {"e"})}
    np.testing.assert_array_equal(found.pairs["a"].divided["a"], np.arange(6)[None])
    np.testing.assert_array_equal(found.pairs["c"].divided["c"], np.arange(5)[:, None])
    np.testing.assert_array_equal(found.pairs["a"].multiplied["c"], np.arange(6)[None])
    assert found.refused == {"a": "an input of the model"}
    assert contracted == {"a", "c", "e"}


def test_convolutions_pools_groups_and_a_flattened_image():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.max_pool(nn.leaky_relu(nn.Conv(8, (3, 3))(x)), (2, 2), (2, 2))
            x = nn.relu(nn.Conv(8, (3, 3), feature_group_count=8)(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))))
            x = nn.avg_pool(nn.relu(nn.Conv(12, (1, 1), feature_group_count=2)(x)), (2, 2), (2, 2), "SAME")
            return nn.Dense(5)(x.reshape(len(x), -1))

    found, contracted = holds(Net().apply, drawn(Net(), X), X)
    assert set(found.pairs) == {f"params/Conv_{i}/kernel" for i in range(3)}
    assert contracted == {*found.pairs, "params/Dense_0/kernel"}
    index = found.pairs["params/Conv_2/kernel"].multiplied["params/Dense_0/kernel"]
    np.testing.assert_array_equal(index[:, 0], np.tile(np.arange(12), 9))


def test_normalization_takes_the_factors_and_the_residual_stream_is_refused():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = Block()(x)
            return nn.Dense(5)(jnp.mean(Block()(x), (1, 2)))

    found, contracted = holds(Net().apply, drawn(Net(), X), X)
    assert shown(found) == {
        f"params/Block_{i}/BatchNorm_0/scale": (
            {f"params/Block_{i}/BatchNorm_0/bias"},
            {f"params/Block_{i}/Conv_1/kernel"},
        )
        for i in (0, 1)
    }
    assert "same factors do not scale" in found.refused["params/Block_1/Conv_0/kernel"]
    assert "same factors do not scale" in found.refused["params/Dense_0/kernel"]
    assert len(contracted) == 5


def test_vision_transformer():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Conv(12, (4, 4), (4, 4))(x).reshape(len(x), 4, 12)
            y = nn.LayerNorm()(x)
            x = x + nn.MultiHeadDotProductAttention(num_heads=3)(y, y)
            x = x + nn.Dense(12)(nn.gelu(nn.Dense(16)(nn.LayerNorm()(x))))
            return nn.Dense(5)(jnp.mean(nn.LayerNorm()(x), 1))

    found, contracted = holds(Net().apply, drawn(Net(), X), X)
    attention = "params/MultiHeadDotProductAttention_0"
    assert shown(found) == {
        "params/LayerNorm_0/scale": (
            {"params/LayerNorm_0/bias"},
            {f"{attention}/{part}/kernel" for part in ("query", "key", "value")},
        ),
        f"{attention}/value/kernel": ({f"{attention}/value/bias"}, {f"{attention}/out/kernel"}),
        "params/LayerNorm_1/scale": ({"params/LayerNorm_1/bias"}, {"params/Dense_1/kernel"}),
        "params/LayerNorm_2/scale": ({"params/LayerNorm_2/bias"}, {"params/Dense_2/kernel"}),
    }
    assert found.refused["params/Dense_0/kernel"].startswith("read by ")
    assert len(contracted) == 8


W = {name: leaves.normal(4, 4, seed=i) for i, name in enumerate(("a", "b", "c"))} | {"v": leaves.normal(4, seed=9)}


@pytest.mark.parametrize(
    ("network", "why"),
    [
        (lambda p, x: jax.nn.gelu(x @ p["a"]) @ p["b"], "read by"),
        (lambda p, x: jax.nn.relu6(x @ p["a"]) @ p["b"], "read by min"),
        (lambda p, x: ((h := x @ p["a"]) @ p["b"]) + jnp.sin(h), "read by sin"),
        (lambda p, x: jnp.concatenate([(h := x @ p["a"]) @ p["b"], h]), "read by concatenate"),
        (lambda p, x: ((h := x @ p["a"]) @ p["b"], h)[0] + h[:, :1], "do not scale"),
        (lambda p, x: (x @ p["a"] + 1) @ p["b"], "do not scale"),
        (lambda p, x: (x @ p["a"] + x @ p["c"]) @ p["b"], "do not scale"),
        (lambda p, x: ((h := x @ p["a"]) * h) @ p["b"], "multiplied by itself"),
        (lambda p, x: jax.nn.relu(x @ p["a"]) @ p["b"] + x @ p["b"], "more than one place"),
        (lambda p, x: jax.nn.relu(x @ p["a"]) @ p["b"] + jnp.sum(p["b"]), "more than one place"),
        (lambda p, x: jax.nn.relu(x @ p["a"]) @ p["b"] + jnp.sum(p["a"]), "read by reduce_sum"),
        (lambda p, x: (x @ p["a"] + p["v"]) @ p["b"] + jnp.cos(p["v"]), "v: read by cos"),
        (lambda p, x: (x @ p["a"] + p["v"]) @ p["b"] + (x @ p["c"] + p["v"]) @ p["c"].T, "added in several places"),
        (lambda p, x: jnp.pad(x @ p["a"], ((1, 1), (0, 0)), constant_values=1.0) @ p["b"], "read by pad"),
        (lambda p, x: (x @ p["a"]).astype(jnp.int32).astype(jnp.float32) @ p["b"], "read by convert"),
        (lambda p, x: jax.lax.scan(lambda c, _: (jax.nn.relu(c @ p["a"]), None), x, None, 2)[0] @ p["b"], "by scan"),
        (lambda p, x: jnp.mean(h := x @ p["a"], 1, keepdims=True) * (h @ p["b"]), "read by reduce_sum"),
        (lambda p, x: jax.nn.softmax(x @ p["a"]) @ p["b"], "do not scale"),
    ],
)
def test_what_would_change_the_network_is_refused(network, why):
    found = scalings(network, W, X[0, 0])
    assert not any("b" in pair.multiplied for pair in found.pairs.values())
    assert why in found.refused["b"]


def test_gates_and_shared_channels_hold():
    gated = lambda p, x: (jax.nn.silu(x @ p["a"]) * (x @ p["c"])) @ p["b"]  # noqa: E731
    found, _ = holds(gated, W, X[0, 0])
    assert shown(found) == {"c": (set(), {"b"})}
    several = lambda p, x: (h := jax.nn.relu(x @ p["a"] + p["v"])) @ p["b"] + (h + jnp.abs(h)) @ p["c"]  # noqa: E731
    found, _ = holds(several, W, X[0, 0])
    assert shown(found) == {"a": ({"v"}, {"b", "c"})}


def test_a_program_that_fails_says_so():
    with pytest.raises(ValueError, match="fails on these params"):
        scalings(lambda p, x: x @ p["v"] @ p["a"], W, X)
