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
