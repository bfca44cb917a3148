"""Factors between layers: the float network stays, the quantized one gets better, what cannot be folded is told."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spartax as sx
from spartax import prune, quantize
from tests import leaves

I, J, K = np.arange(6), np.arange(16), np.arange(96)
# Golden inputs: a weight [out, in], and 96 columns of inputs.
GOLDEN_W = np.sin(1 + 3.1 * I[:, None] + 7.3 * J + 0.11 * I[:, None] * J).astype(np.float32)
GOLDEN_X = np.cos(0.5 * J[:, None] + 0.37 * K) + 0.5 * np.sin(0.19 * J[:, None] * K + 0.3)
GOLDEN_X = (GOLDEN_X + 0.2 * np.cos(0.071 * (J[:, None] + 1) ** 2 * K)) * (1 + 0.25 * J[:, None])
GOLDEN_S = """1.265572 1.497195 1.682617 1.604656 1.851203 1.909938 1.958226 2.110783 2.25745 2.322708 2.39514 2.543788
2.58621 2.628618 2.961362 2.994779"""


def pair(p, x):
    """A layer whose channels the golden inputs are, and its reader."""
    return (x @ p["first"]) @ p["second"].T


GOLDEN = {"first": np.eye(16, dtype=np.float32), "second": GOLDEN_W}
GOLDEN_ROWS = jnp.asarray(GOLDEN_X.T, jnp.float32)


def factors(before, after):
    """What the outputs of a kernel `[in, out]` were divided by."""
    return np.max(np.abs(before), 0) / np.max(np.abs(np.asarray(after)), 0)


def relative(a, b):
    return float(np.linalg.norm(np.asarray(a) - np.asarray(b)) / np.linalg.norm(np.asarray(b)))


def test_smooth_has_the_golden_factors_and_errors():
    out = sx.compress(pair, GOLDEN, quantize.smooth(0.5), batches=[GOLDEN_ROWS])
    s = np.diag(GOLDEN["first"]) / np.diag(np.asarray(out.params["first"]))
    np.testing.assert_allclose(s, np.array(GOLDEN_S.split(), float), rtol=1e-5)
    np.testing.assert_allclose(out.params["second"], GOLDEN_W * s, rtol=1e-5)
    exact = GOLDEN_ROWS @ GOLDEN_W.T
    read = lambda w, x: x @ w["second"].T  # noqa: E731
    errors = []
    for w, x in ((GOLDEN["second"], GOLDEN_ROWS), (out.params["second"], GOLDEN_ROWS / s)):
        steps = quantize.quantize(quantize.integer(8)), quantize.activations(8, per="tensor")
        small = sx.compress(read, {"second": w}, *steps, batches=[x])
        errors.append(relative(small.apply(small.params, x), exact))
    np.testing.assert_allclose(errors, [0.011392, 0.010151], rtol=2e-3)


def drawn():
    """Three layers of channels of very different sizes."""
    rng = np.random.default_rng(2)
    spread = lambda n: np.exp(rng.normal(0, 2, n))  # noqa: E731
    params = {"a": rng.normal(size=(8, 12)) * spread(12), "b": rng.normal(size=12), "c": rng.normal(size=(12, 10))}
    params["c"] *= spread(10)
    params |= {"d": rng.normal(size=10), "e": rng.normal(size=(10, 5))}
    params["b"][3], params["a"][:, 3] = 0, 0  # a channel of zeros
    return {path: jnp.asarray(w, jnp.float32) for path, w in params.items()}


@jax.jit
def layers(p, x):
    return jax.nn.relu(jax.nn.relu(x @ p["a"] + p["b"]) @ p["c"] + p["d"]) @ p["e"]


ROWS = leaves.normal(64, 8, seed=7)


def test_equalized_layers_share_the_range_of_every_channel():
    params = drawn()
    out = sx.compress(layers, params, quantize.equalize(), batches=[ROWS])
    new = {path: np.asarray(w) for path, w in out.params.items()}
    on = np.arange(12) != 3
    np.testing.assert_allclose(np.abs(new["a"]).max(0)[on], np.abs(new["c"]).max(1)[on], rtol=1e-4)
    np.testing.assert_allclose(np.abs(new["c"]).max(0), np.abs(new["e"]).max(1), rtol=1e-4)
    s, t = factors(np.asarray(params["a"])[:, on], new["a"][:, on]), np.asarray(params["d"]) / new["d"]
    np.testing.assert_allclose(np.asarray(params["b"])[on] / new["b"][on], s, rtol=1e-4)
    np.testing.assert_allclose(new["c"][on], np.asarray(params["c"])[on] * s[:, None] / t, rtol=1e-4)
    np.testing.assert_allclose(new["a"][:, 3], 0)
    exact = layers(params, ROWS)
    np.testing.assert_allclose(layers(out.params, ROWS), exact, rtol=1e-5, atol=1e-5 * np.abs(exact).max())
    assert out.info["a"]["steps"] == [{"method": "equalize", "refused": "an input of the model"}]
    assert out.info["c"]["steps"][0]["divided"] == ["a", "b"]
    np.testing.assert_allclose(out.info["c"]["steps"][0]["largest"], s.max(), rtol=1e-4)


def test_one_sweep_is_the_formula():
    params = {"a": drawn()["a"], "c": drawn()["c"]}
    two = lambda p, x: jax.nn.relu(x @ p["a"]) @ p["c"]  # noqa: E731
    out = sx.compress(two, params, quantize.equalize(1), batches=[ROWS])
    made, read = np.abs(params["a"]).max(0), np.abs(params["c"]).max(1)
    s = np.where(made > 0, np.sqrt(made / read), 1)
    np.testing.assert_allclose(out.params["a"], params["a"] / s, rtol=1e-5)
    np.testing.assert_allclose(out.params["c"], params["c"] * s[:, None], rtol=1e-5)


def test_equalizing_helps_a_scale_for_the_whole_tensor():
    params, grid = drawn(), quantize.integer(8, channel=False)
    exact = layers(params, ROWS)
    errors = []
    for before in ((), (quantize.equalize(),)):
        out = sx.compress(layers, params, *before, quantize.quantize(grid), batches=[ROWS])
        errors.append(relative(out.apply(out.params, ROWS), exact))
    assert errors[1] < 0.5 * errors[0]


class Net(nn.Module):
    """Convolution, norm and grouped convolution, then an attention-free head with a norm."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.BatchNorm(use_running_average=True)(nn.Conv(8, (3, 3), use_bias=False)(x)))
        x = nn.relu(nn.Conv(8, (3, 3), feature_group_count=4)(x))
        return nn.Dense(5)(nn.gelu(nn.Dense(9)(nn.LayerNorm()(jnp.mean(x, (1, 2))))))


IMAGES = leaves.normal(6, 6, 6, 3, seed=4)


def network():
    """Variables with one large channel behind the norm, and random vectors."""
    variables = Net().init(jax.random.key(0), IMAGES)
    norm = variables["params"]["BatchNorm_0"]
    norm["scale"] = norm["scale"].at[2].set(60.0)
    norm["bias"] = leaves.normal(8, seed=3)
    return variables


def test_smooth_tames_an_outlier_channel_behind_a_norm():
    variables = network()
    exact = jax.jit(Net().apply)(variables, IMAGES)
    smoothed = sx.compress(Net().apply, variables, quantize.smooth(), batches=[IMAGES])
    np.testing.assert_allclose(smoothed.apply(smoothed.params, IMAGES), exact, rtol=1e-4, atol=1e-5)
    assert smoothed.info["params/Conv_1/kernel"]["steps"][0]["divided"] == [
        "params/BatchNorm_0/scale",
        "params/BatchNorm_0/bias",
    ]
    assert "read by" in smoothed.info["params/Dense_0/kernel"]["steps"][0]["refused"]
    np.testing.assert_array_equal(
        smoothed.params["params"]["Conv_0"]["kernel"], variables["params"]["Conv_0"]["kernel"]
    )
    # Peaks by hand: every input of the grouped convolution that its patches meet, and the kernels of its group.
    hidden = Net().apply(variables, IMAGES, capture_intermediates=True)[1]["intermediates"]["BatchNorm_0"]["__call__"]
    peaks = np.maximum(np.asarray(hidden[0]), 0).max((0, 1, 2))
    kernel = np.abs(np.asarray(variables["params"]["Conv_1"]["kernel"])).max((0, 1))  # [2, 8]
    sizes = np.array([kernel[i % 2, 2 * (i // 2) : 2 * (i // 2) + 2].max() for i in range(8)])
    norm = smoothed.params["params"]["BatchNorm_0"]
    s = np.asarray(variables["params"]["BatchNorm_0"]["scale"]) / np.asarray(norm["scale"])
    np.testing.assert_allclose(s, np.sqrt(peaks / sizes), rtol=1e-4)


def test_eight_bits_for_weights_and_activations_lose_less_after_smoothing():
    params, x = {**drawn(), "a": jnp.asarray(np.eye(8, 12) + 0.1, jnp.float32)}, ROWS.at[:, 0].multiply(80.0)
    params["c"] = leaves.normal(12, 10, seed=6).at[0].multiply(0.02)  # an outlier channel that counts for little
    exact, errors = layers(params, x), []
    for alpha in (None, 0.5):
        first = () if alpha is None else (quantize.smooth(alpha),)
        start = sx.compress(layers, params, *first, batches=[x]).params if first else params
        steps = quantize.quantize(quantize.integer(8)), quantize.activations(8, observer=quantize.min_max())
        rule = lambda path, w: path != "a"  # noqa: E731
        out = sx.compress(layers, start, *steps, batches=[x], rule=rule)
        errors.append(relative(out.apply(out.params, x), exact))
    assert errors[1] < 0.5 * errors[0]


def test_selection_and_compressed_weights_are_respected():
    params = drawn()
    out = sx.compress(layers, params, quantize.equalize(), batches=[ROWS], rule=lambda path, w: path != "a")
    assert out.info["c"]["steps"][0]["refused"] == "a is not selected"
    assert out.params["a"] is params["a"]
    assert "divided" in out.info["e"]["steps"][0]
    small = sx.compress(layers, params, quantize.quantize(quantize.integer(8)), batches=[ROWS]).params
    again = sx.compress(layers, small, quantize.equalize(), batches=[ROWS])
    assert {tuple(step["refused"].split()[1:]) for p in "ce" for step in again.info[p]["steps"]} == {
        ("is", "compressed", "already")
    }


def test_bad_input_is_refused_at_the_door():
    with pytest.raises(ValueError, match="sweeps must be an integer of at least 1; got 0"):
        quantize.equalize(0)
    with pytest.raises(ValueError, match=r"alpha must be in \[0, 1\]; got 1.5"):
        quantize.smooth(1.5)
    with pytest.raises(ValueError, match="scalings is needed"):
        sx.compress(layers, drawn(), quantize.equalize(), rule=lambda path, w: path in "ace")
    with pytest.raises(ValueError, match="peaks is needed"):
        sx.compress(layers, drawn(), quantize.smooth(), batches=[jax.ShapeDtypeStruct(ROWS.shape, ROWS.dtype)])
    with pytest.raises(ValueError, match=r"a later one needs ranges .*call compress twice"):
        sx.chain(quantize.smooth(), quantize.activations(8, observer=quantize.min_max()))
    with pytest.raises(ValueError, match="a later one needs objective"):
        sx.chain(quantize.equalize(), prune.prune(prune.snip(), 0.5))
    sx.chain(prune.prune(prune.magnitude(), 0.5), quantize.equalize(), quantize.quantize(quantize.integer(8)))


def test_weights_that_loops_read_say_that_they_are_not_followed():
    """Two layers in a scan: their channels are not read, and nobody is left to wonder."""
    params = {"stack": leaves.normal(2, 6, 6), "last": leaves.normal(6, 3, seed=1)}

    def network(p, x):
        x = jax.lax.scan(lambda h, w: (jax.nn.relu(h @ w), None), x, p["stack"])[0]
        return x @ p["last"]

    for method in (quantize.equalize(), quantize.smooth()):
        info = sx.compress(network, params, method, batches=[leaves.normal(4, 6, seed=2)]).info
        assert info["stack"]["steps"][0]["refused"].startswith("the program reads it where channels are not followed")
        assert "refused" in info["last"]["steps"][0]
