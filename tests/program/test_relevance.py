import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from spartax import program
from tests.oracles.waves import wave

RULES = {"z+": program.alpha_beta(), "alpha 2": program.alpha_beta(2.0), "epsilon": program.epsilon(0.0)}


def test_z_plus_golden():
    """x >= 0: R_in = x W+^T (R / (W+ x + 1e-9))."""
    x, weight, relevance = np.abs(wave(5)), wave(4, 5, a=0.9), np.abs(wave(4, a=2.2))
    z, back = jax.vjp(program.relevance(lambda x: weight @ x), jnp.asarray(x, jnp.float32))
    found = x * np.asarray(back(jnp.asarray(relevance / z, jnp.float32))[0])
    np.testing.assert_allclose(z, weight @ x, rtol=1e-5)
    np.testing.assert_allclose(found, [2.5265066086, 0.5890662805, 0.0, 0.0, 0.0096039723], rtol=1e-5)
    np.testing.assert_allclose(found.sum(), 3.1251768614, rtol=1e-5)


def by_hand(name, x, weight, relevance):
    """Every pair (i, j) on its own."""
    parts = x[:, None] * weight
    p, n = np.where(parts > 0, parts, 0), np.where(parts < 0, parts, 0)
    share = {
        "z+": p / p.sum(0),
        "alpha 2": 2 * p / p.sum(0) - n / n.sum(0),
        "epsilon": parts / parts.sum(0),
    }[name]
    return share * relevance


@pytest.mark.parametrize("name", list(RULES))
def test_two_layers_of_mixed_signs_pair_by_pair(name):
    rng = np.random.default_rng(3)
    x, first, second = rng.normal(size=6), rng.normal(size=(6, 5)), rng.normal(size=(5, 3))
    hidden = np.maximum(x @ first, 0)
    live = hidden > 0
    assert 1 < live.sum() < 5
    logit = hidden @ second[:, 1]
    top = by_hand(name, hidden[live], second[live, 1:2], logit)
    low = np.zeros((6, 5))
    low[:, live] = by_hand(name, x, first[:, live], top[:, 0])
    net = program.relevance(lambda x, w, v: jax.nn.relu(x @ w) @ v, RULES[name])
    arrays = [jnp.asarray(v, jnp.float32) for v in (x[None], first, second)]
    c = jax.jit(jax.grad(lambda *v: net(*v)[0, 1], argnums=(0, 1, 2)))(*arrays)
    np.testing.assert_allclose(x * np.asarray(c[0][0]), low.sum(1), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(first * np.asarray(c[1]), low, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose((second * np.asarray(c[2]))[live, 1], top[:, 0], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(low.sum(), logit, rtol=1e-5)


def residual_net(params, x):
    """Convolutions, a residual branch, both pools, a scan over two Dense layers; no biases."""
    numbers = ("NHWC", "HWIO", "NHWC")
    conv = lambda x, w: lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=numbers)  # noqa: E731
    x = jax.nn.relu(conv(x, params["a"]))
    x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    x = x + jax.nn.relu(conv(x, params["b"]))
    x = lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID") / 4
    x = jnp.transpose(x, (0, 3, 1, 2)).reshape(len(x), -1)
    x = lax.scan(lambda x, w: (jax.nn.relu(x @ w), None), x, params["c"])[0]
    return x @ params["d"]


def test_relevance_is_conserved_through_a_residual_network():
    rng = np.random.default_rng(1)
    shapes = {"a": (3, 3, 2, 4), "b": (3, 3, 4, 4), "c": (2, 16, 16), "d": (16, 3)}
    params = {name: jnp.asarray(rng.normal(size=s), jnp.float32) for name, s in shapes.items()}
    params["a"] = params["a"].at[..., 2].set(0)  # a dead filter
    x, y = jnp.asarray(rng.uniform(size=(3, 8, 8, 2)), jnp.float32), jnp.array([0, 1, 2])
    net = program.relevance(residual_net)

    @jax.jit
    def both(params, x):
        pick = lambda params, x: jnp.take_along_axis(net(params, x), y[:, None], 1)[:, 0]  # noqa: E731
        return pick(params, x), jax.grad(lambda *v: jnp.sum(pick(*v)), argnums=(0, 1))(params, x)

    logits, (of_params, of_x) = both(params, x)
    np.testing.assert_allclose(logits, residual_net(params, x)[jnp.arange(3), y], rtol=1e-4)
    assert np.all(np.abs(logits) > 0.1)
    np.testing.assert_allclose(np.sum(np.asarray(x * of_x), (1, 2, 3)), logits, rtol=1e-3)
    passed = {name: np.asarray(params[name] * of_params[name]) for name in params}
    total = float(jnp.sum(logits))
    np.testing.assert_allclose(passed["a"].sum(), total, rtol=1e-3)  # before the branch all of it passes
    np.testing.assert_allclose([layer.sum() for layer in passed["c"]], [total] * 2, rtol=1e-3)
    np.testing.assert_allclose(passed["d"].sum(), total, rtol=1e-3)
    assert 0.1 < abs(passed["b"].sum() / total) < 0.9  # the branch takes its share
    assert np.all(passed["a"][..., 2] == 0)
    assert np.abs(passed["a"][..., 3]).sum() > 0


def test_biases_take_their_share():
    net = program.relevance(lambda x: x @ jnp.array([[1.0], [2.0]]) + 4.0)
    x = jnp.array([[2.0, 1.0]])  # 2 + 2 + 4
    np.testing.assert_allclose(x * jax.grad(lambda x: net(x)[0, 0])(x), [[2.0, 2.0]], rtol=1e-6)


def test_bad_options_are_named():
    with pytest.raises(ValueError, match="alpha must be in"):
        program.alpha_beta(0.5)
    with pytest.raises(ValueError, match="stabilizer must be in"):
        program.epsilon(-1.0)
