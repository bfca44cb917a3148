"""`inspect` reads axes and costs off the program; `explain` says where each weight goes."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

import spartax as sx
from spartax.records import Layout
from tests import leaves

pytestmark = pytest.mark.core


def network(params, x):
    x = lax.conv_general_dilated(x, params["conv"], (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    x = jax.nn.relu(x + params["bias"]).reshape(x.shape[0], -1)
    return (x @ params["dense"].T) * params["scale"]


PARAMS = {
    "conv": jnp.ones((3, 3, 2, 4)),
    "bias": jnp.ones(4),
    "dense": jnp.ones((10, 64)),
    "scale": jnp.ones(10),
    "step": jnp.zeros((), jnp.int32),
}


def test_layouts_and_macs_of_a_small_network():
    """8 x 8 images, stride 2: 16 positions x 4 channels x 18 inputs; then 64 x 10."""
    usage = sx.inspect(network, PARAMS, jnp.ones((5, 8, 8, 2)))
    assert usage["conv"].layout == Layout((0, 1, 2), (3,))
    assert usage["conv"].macs == 16 * 4 * 18
    assert usage["dense"].layout == Layout((1,), (0,))
    assert usage["dense"].macs == 640
    assert usage["bias"].layout is None
    assert usage["scale"].macs == 0
    assert "step" not in usage


def test_shapes_are_enough():
    shapes = jax.eval_shape(lambda: PARAMS)
    usage = sx.inspect(network, shapes, jax.ShapeDtypeStruct((5, 8, 8, 2), jnp.float32))
    assert usage["conv"].macs == 16 * 4 * 18


def test_macs_of_a_compressed_weight():
    """Rank 2 of 18 x 4: 16 positions x (18 x 2 + 2 x 4)."""
    params = {**PARAMS, "conv": leaves.lowrank((3, 3, 2, 4), 2)}
    usage = sx.inspect(network, params, jnp.ones((5, 8, 8, 2)))
    assert (usage["conv"].macs, usage["conv"].macs_now) == (16 * 4 * 18, 16 * (36 + 8))


def test_scanned_layers_count_as_often_as_they_run():
    def scanned(w, x):
        return lax.scan(lambda c, w: (jnp.tanh(c @ w), None), x, w)[0]

    usage = sx.inspect(scanned, leaves.normal(3, 6, 6), jnp.ones((4, 6)))[""]
    assert usage.layout == Layout((1,), (2,), (0,))
    assert usage.macs == 3 * 36


def test_heads_merged_by_a_reshape():
    """[in, heads, dim] flattened to a matrix: the columns are both axes."""
    fn = lambda w, x: x @ w.reshape(6, 8)  # noqa: E731
    assert sx.inspect(fn, jnp.ones((6, 2, 4)), jnp.ones((5, 6)))[""].layout == Layout((0,), (1, 2))


def test_grouped_convolution():
    def convolve(w, x):
        numbers = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=numbers, feature_group_count=2)

    usage = sx.inspect(convolve, jnp.ones((3, 3, 2, 6)), jnp.ones((1, 5, 5, 4)))[""]
    assert usage.layout == Layout((0, 1, 2), (3,), (), 2)
    assert usage.macs == 25 * 6 * 18


def test_tied_weight_counts_both_uses():
    usage = sx.inspect(lambda w, x: (x @ w) @ w.T, jnp.ones((6, 4)), jnp.ones((3, 6)))[""]
    assert len(usage.uses) == 2
    assert usage.macs == 48


def test_explain_names_every_way():
    params = {
        "low": leaves.lowrank((6, 6), 1),
        "quantized": leaves.quantized((6, 6)),
        "squared": leaves.masked((6, 6)),
        "idle": jnp.ones((2, 2)),
    }

    def fn(p, x):
        return x @ p["low"] + x @ p["quantized"] + x @ (p["squared"] * p["squared"])

    told = sx.explain(fn, params, jnp.ones((4, 6)))
    assert told["low"] == ("dot_general: LowRank: two thin products (rank 1)",)
    assert told["quantized"] == ("dot_general: dense (Quantized: stored small, computed dense: too small to gain)",)
    assert told["squared"] == ("mul: made dense", "mul: made dense")
    assert told["idle"] == ("never read",)


def test_explain_says_what_runs_of_weights_in_weights():
    """Of two weights that meet the left one has a kernel; factors are made dense; integers are added in one group."""
    low = sx.LowRank(leaves.quantized((6, 1)), leaves.masked((1, 6)))
    grouped = sx.QuantizedInputs(leaves.quantized((6, 6), 8, (2, 6)))
    params = {"a": leaves.lowrank((6, 6), 1), "b": leaves.lowrank((6, 6), 1), "low": low, "grouped": grouped}
    told = sx.explain(lambda p, x: p["a"] @ p["b"] + x @ p["low"] + x @ p["grouped"], params, jnp.ones((6, 6)))
    assert told["a"] == ("dot_general: LowRank: two thin products (rank 1)",)
    assert told["b"] == ("dot_general: dense (LowRank: made dense, it meets another compressed weight)",)
    assert "(rank 1, Quantized and Masked factors made dense)" in told["low"][0]
    if jax.default_backend() == "cpu":
        assert "8-bit float product of codes [xla] (scales in groups: codes as floats)" in told["grouped"][0]
    with sx.kernels("reference"):
        assert "integer product" in sx.explain(lambda p, x: x @ p, grouped, jnp.ones((6, 6)))[""][0]


def test_params_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"(?s)apply_fn\(params, x\) fails on these params.*dense \(10, 7\)") as error:
        sx.inspect(network, {**PARAMS, "dense": jnp.ones((10, 7))}, jnp.ones((5, 8, 8, 2)))
    assert error.value.__cause__ is not None
