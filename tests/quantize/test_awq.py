"""The search over scales has the golden losses, is never worse than plain rounding, and folds what it found."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spartax as sx
from spartax import quantize
from tests import leaves
from tests.quantize.test_folding import GOLDEN, GOLDEN_ROWS, GOLDEN_W, pair

# Mean squared error of the outputs for the ratios 0, 1/20, ..., 19/20: rows of 3 bits with a zero point.
GOLDEN_LOSSES = np.array(
    [
        *(0.799088, 0.637829, 1.228047, 0.740302, 0.764822, 0.892506, 0.935968, 0.905328, 0.717464, 0.729856),
        *(0.974982, 0.87003, 1.018861, 1.113028, 0.854042, 0.713721, 0.862515, 0.904878, 0.672497, 0.482702),
    ]
)
GRID = quantize.integer(3, symmetric=False)


def test_the_golden_search():
    out = sx.compress(pair, GOLDEN, quantize.awq(GRID), batches=[GOLDEN_ROWS])
    (found,) = out.info["second"]["steps"]
    assert found["ratio"] == 0.95 == np.argmin(GOLDEN_LOSSES) / 20
    np.testing.assert_allclose([found["loss"] / 6, found["plain_loss"] / 6], GOLDEN_LOSSES[[-1, 0]], rtol=2e-3)
    s = np.mean(np.abs(GOLDEN_ROWS), 0) ** 0.95
    s /= np.sqrt(s.max() * s.min())
    np.testing.assert_allclose(np.diag(np.asarray(out.params["first"])), 1 / s, rtol=1e-5)
    np.testing.assert_allclose(out.params["second"], GOLDEN_W * s, rtol=1e-5)
    exact = np.asarray(GOLDEN_ROWS) @ GOLDEN_W.T
    rule = lambda path, w: path == "second"  # noqa: E731
    outputs = [
        sx.compress(pair, params, quantize.quantize(GRID), batches=[GOLDEN_ROWS], rule=rule)
        for params in (GOLDEN, out.params)
    ]
    errors = [float(np.mean((np.asarray(o.apply(o.params, GOLDEN_ROWS)) - exact) ** 2)) for o in outputs]
    np.testing.assert_allclose(errors, GOLDEN_LOSSES[[0, -1]], rtol=2e-3)


@jax.jit
def network(p, x):
    """A convolution, a grouped one, and two Dense readers of one image."""
    numbers = ("NHWC", "HWIO", "NHWC")
    conv = lambda x, w, g: jax.lax.conv_general_dilated(  # noqa: E731
        x, w, (1, 1), "VALID", dimension_numbers=numbers, feature_group_count=g
    )
    x = jax.nn.relu(conv(x, p["first"], 1) + p["bias"])
    x = jax.nn.relu(conv(x, p["grouped"], 2)).reshape(len(x), -1)
    return x @ p["left"] + jnp.tanh(x @ p["right"])


def test_never_worse_than_plain_rounding_and_the_network_stays():
    params = {
        "first": leaves.normal(2, 2, 3, 8, seed=1),
        "bias": leaves.normal(8, seed=2),
        "grouped": leaves.normal(2, 2, 4, 6, seed=3),
        "left": leaves.normal(24, 5, seed=4),
        "right": leaves.normal(24, 5, seed=5),
    }
    x = leaves.normal(16, 4, 4, 3, seed=6) * jnp.array([1.0, 5.0, 0.1])
    out = sx.compress(network, params, quantize.awq(quantize.integer(3)), batches=[x])
    exact = network(params, x)
    np.testing.assert_allclose(network(out.params, x), exact, rtol=1e-4, atol=1e-5 * np.abs(exact).max())
    steps = {path: out.info[path]["steps"][0] for path in ("grouped", "left", "right")}
    assert steps["left"] == steps["right"]
    assert steps["left"]["divided"] == ["grouped"]
    assert all(step["loss"] <= step["plain_loss"] for step in steps.values())
    assert any(step["ratio"] > 0 for step in steps.values())
    # The plain loss of the two readers by hand: E ||x D||^2 over the rows that meet them.
    plain = sx.compress(network, params, quantize.quantize(quantize.integer(3)), batches=[x]).params
    hidden = np.asarray(jax.nn.relu(reader_inputs(params, x)))
    by_hand = sum(
        np.sum((hidden @ (np.asarray(sx.dense(plain[p])) - np.asarray(params[p]))) ** 2) for p in ("left", "right")
    )
    np.testing.assert_allclose(steps["left"]["plain_loss"], by_hand / len(x), rtol=1e-3)


def reader_inputs(params, x):
    """What `left` reads before the last relu: the network with an identity in its place."""
    probe = {**params, "left": jnp.eye(24), "right": jnp.zeros((24, 24))}
    return network(probe, x)


def test_bad_input_is_refused_at_the_door():
    with pytest.raises(ValueError, match="needs magnitudes, moments"):
        sx.chain(quantize.equalize(), quantize.awq(GRID))
    with pytest.raises(ValueError, match="magnitudes is needed"):
        sx.compress(pair, GOLDEN, quantize.awq(GRID), batches=[jax.ShapeDtypeStruct((4, 16), jnp.float32)])
