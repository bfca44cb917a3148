"""`quantize.activations` on real networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spartax as sx
from spartax import prune, quantize
from spartax.records import Evidence
from tests import plugs

X, _ = plugs.batch()
WEIGHTS = plugs.draw()


def compressed(*steps):
    return sx.compress(plugs.network, WEIGHTS, *steps, batches=[X[:40], X[40:]])


def test_static_scales_are_those_of_the_inputs_of_each_weight():
    out = compressed(quantize.activations(8, observer=quantize.min_max()))
    pixels = np.abs(X).max()
    numbers = ("NHWC", "HWIO", "NHWC")
    image = jax.nn.relu(jax.lax.conv_general_dilated(X, WEIGHTS["conv"], (1, 1), "VALID", dimension_numbers=numbers))
    pooled = np.mean(image, (1, 2))
    hidden = np.maximum(pooled @ np.asarray(WEIGHTS["outputs_first"]).T, 0)
    want = {"conv": pixels / 127, "outputs_first": pooled.max() / 127, "dense": hidden.max() / 127}
    for path, scale in want.items():
        np.testing.assert_allclose(out.params[path].scale, scale, rtol=1e-5)
    np.testing.assert_allclose(out.params["stack"].scale, [hidden.max() / 127] * 2, rtol=1e-5)
    step = out.info["dense"]["steps"][0]
    assert step["scales"] == "static"
    assert (step["low"], step["bits"]) == (0.0, 8)
    np.testing.assert_allclose(step["high"], hidden.max(), rtol=1e-5)


def test_eight_bits_on_both_sides_stay_close_and_two_bits_do_not():
    dense = plugs.network(WEIGHTS, X)
    error = {}
    for bits in (8, 4, 2):
        out = compressed(quantize.quantize(quantize.integer(8)), quantize.activations(bits, False))
        assert isinstance(out.params["dense"].weight, sx.Quantized)
        error[bits] = float(jnp.linalg.norm(out.apply(out.params, X) - dense) / jnp.linalg.norm(dense))
    assert error[8] < 0.02
    assert 4 * error[8] < error[4] < error[2]


def test_order_and_masks():
    """Inputs first or codes first: the same leaf; a mask below both."""
    first = compressed(quantize.activations(8), quantize.quantize(quantize.integer(8)))
    last = compressed(quantize.quantize(quantize.integer(8)), quantize.activations(8))
    jax.tree.map(np.testing.assert_array_equal, first.params, last.params)
    masked = compressed(
        prune.prune(prune.magnitude(), 0.5), quantize.quantize(quantize.integer(8)), quantize.activations(8)
    )
    assert isinstance(masked.params["conv"].weight, sx.Masked)
    assert abs(float(jnp.mean(plugs.dense(masked.params["conv"]) == 0)) - 0.5) < 0.2


def test_asymmetric_codes_halve_the_step_of_activations_that_are_never_negative():
    scale = {
        symmetric: compressed(quantize.activations(8, symmetric, observer=quantize.min_max())).params["dense"].scale
        for symmetric in (True, False)
    }
    np.testing.assert_allclose(scale[True] / scale[False], 255 / 127, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 9}, "bits must be one of 2, 3"),
        ({"per": "row"}, "per must be one of 'token', 'tensor'"),
        ({"observer": "kl"}, "observer must be one such as"),
    ],
)
def test_bad_values_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        quantize.activations(**options)


def test_inputs_that_calibration_did_not_see_are_named():
    static = quantize.activations(8, observer=quantize.min_max())
    given = plugs.evidence({"dense": WEIGHTS["dense"]})
    params, state = static.init({"dense": WEIGHTS["dense"]}, given)
    for ranges in ({}, {"dense": jnp.zeros(2)}):
        with pytest.raises(ValueError, match="dense: calibration saw no input but zeros"):
            static.update(params, state, given._replace(ranges=ranges))
    with pytest.raises(ValueError, match="ranges is needed"):
        static.update(params, state, Evidence(given.layouts))
    with pytest.raises(ValueError, match="dense: its inputs are rounded already"):
        static.init(params, given)


SLICED = {
    "columns": (lambda w: w[:, 1:4], lambda y: y[:, 1:4]),
    "columns of a split": (lambda w: jnp.split(w, [1, 4], axis=1)[1], lambda y: y[:, 1:4]),
    "columns by index": (lambda w: jax.lax.dynamic_slice(w, (0, 1), (12, 3)), lambda y: y[:, 1:4]),
    "one of a row of weights": (lambda w: w.reshape(12, 1, 5).squeeze(1), lambda y: y),
    "columns of what was turned": (lambda w: w.T[:2].T, lambda y: y[:, :2]),
}
ROUNDED = {
    "dynamic": quantize.activations(2),
    "static": quantize.activations(2, observer=quantize.min_max()),
    "pact": quantize.pact(2),
    "lsq": quantize.lsq(8, activations=2),
    "reste": quantize.reste(5, activations=True),
    "qfx": quantize.qfx(8, activations=2),
}


@pytest.mark.parametrize("method", ROUNDED)
@pytest.mark.parametrize("way", SLICED)
def test_activations_are_rounded_where_the_program_cuts_the_weight(method, way):
    """A part of the outputs of a weight meets the same rounded activations as all of them."""
    rng = np.random.default_rng(0)
    params = {"w": jnp.asarray(rng.normal(size=(12, 5)), jnp.float32)}
    x = jnp.asarray(rng.normal(size=(16, 12)), jnp.float32)
    cut, kept = SLICED[way]
    whole = sx.compress(lambda p, x: x @ p["w"], params, ROUNDED[method], batches=[x])
    found = sx.compress(lambda p, x: x @ cut(p["w"]), params, ROUNDED[method], batches=[x])
    np.testing.assert_allclose(found.apply(found.params, x), kept(whole.apply(whole.params, x)), atol=1e-5)
    assert float(jnp.abs(found.apply(found.params, x) - x @ cut(sx.dense(found.params)["w"])).max()) > 0.1
    assert "warning" not in found.info["w"]


def test_a_place_where_activations_are_not_rounded_is_told():
    """A weight that the program multiplies is dense there, and what meets it is not rounded."""
    params, x = {"w": jnp.ones((4, 3)), "v": jnp.ones((4, 3))}, jnp.ones((2, 4))
    apply = lambda p, x: x @ p["w"] + x @ (2 * p["w"]) + x @ p["v"]  # noqa: E731
    out = sx.compress(apply, params, quantize.activations(4), batches=[x])
    assert out.info["w"]["warning"] == "made dense (mul): activations that meet it there are not rounded"
    assert "warning" not in out.info["v"]
