"""`operations`: each contraction alone gives what it gives inside the network, to the bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import spartax as sx
from spartax.program import operations

pytestmark = pytest.mark.core
rng = np.random.default_rng(0)


def whole(*shape):
    """Small whole numbers, whose sums of products are exact in any order."""
    return jnp.asarray(rng.integers(-3, 4, shape), jnp.float32)


PARAMS = {
    "conv": whole(6, 2, 3, 2),  # [O, I / groups, H, W]
    "left": whole(5, 3),
    "tied": whole(6, 6),
    "stack": whole(2, 6, 6),
    "bias": whole(6),
}
X = whole(3, 7, 6, 4)


def layers(p, x):
    """The output of every contraction, in the order of the program."""
    conv = lax.conv_general_dilated(
        x, p["conv"], (2, 1), ((1, 0), (2, 1)), rhs_dilation=(1, 2), dimension_numbers=("NHWC", "OIHW", "NHWC"),
        feature_group_count=2,
    )  # fmt: skip
    x = jax.nn.relu(conv + p["bias"]).sum((1, 2))  # [3, 6]
    left = p["left"] @ x
    first = jax.checkpoint(lambda w, x: x @ w.T.astype(jnp.bfloat16).astype(jnp.float32))(p["tied"], x)
    second = jax.jit(lambda w, x: x @ w)(p["tied"], jnp.sin(first) > 0)
    last = lax.dot_general(second, p["stack"][1], (((1,), (1,)), ((), ())))
    return {"conv": (conv,), "left": (left,), "tied": (first, second), "stack": (last,)}


OUTPUTS = jax.jit(layers)(PARAMS, X)
FOUND = operations(layers, PARAMS, X, OUTPUTS)


@pytest.mark.parametrize("path", OUTPUTS)
def test_an_operation_alone_gives_the_output_of_the_layer(path):
    assert len(FOUND[path]) == len(OUTPUTS[path])
    for operation, expected in zip(FOUND[path], OUTPUTS[path]):
        np.testing.assert_array_equal(jax.jit(operation.apply)(PARAMS[path], operation.x), expected)


def test_inputs_are_those_of_the_batch():
    np.testing.assert_array_equal(FOUND["conv"][0].x, X)
    np.testing.assert_array_equal(FOUND["stack"][0].x, OUTPUTS["tied"][1])


def test_a_leaf_takes_the_place_of_the_weight():
    """Packed codes of the stored weight go through the transposes and casts of the program."""
    mask = jnp.asarray(rng.random((6, 6)) < 0.3)
    leaf = sx.pack(sx.Masked(PARAMS["tied"], mask))
    for operation in FOUND["tied"]:
        ours = sx.compressed(operation.apply)(leaf, operation.x)
        np.testing.assert_array_equal(ours, operation.apply(PARAMS["tied"] * mask, operation.x))


def test_a_compressed_network_is_run_on_what_its_leaves_mean():
    factors = sx.LowRank(whole(6, 1), whole(1, 6))
    dense, low = (
        operations(lambda p, x: (x @ p["low"]) @ p["w"], {"w": whole(6, 2), "low": low}, jnp.eye(6), ["w", "low"])
        for low in (sx.dense(factors), factors)
    )
    np.testing.assert_array_equal(low["w"][0].x, dense["w"][0].x)
    np.testing.assert_array_equal(low["w"][0].x, sx.dense(factors))


def scanned(p, x):
    return lax.scan(lambda x, w: (x @ w, None), x, p["w"])[0]


def branched(p, x):
    return lax.cond(x[0, 0] > 0, lambda x: x @ p["w"][0], lambda x: x, x)


def looped(p, x):
    return lax.fori_loop(0, jnp.int32(x[0, 0]), lambda i, x: x @ p["w"][0], x)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (scanned, "w: used inside scan"),
        (branched, "w: used inside cond"),
        (looped, "w: used inside while"),
        (lambda p, x: x @ lax.dynamic_index_in_dim(p["w"], jnp.int32(x[0, 0]), 0, False), "w: .* a computed index"),
        (lambda p, x: x * p["w"][0], "w: never contracted"),
        (lambda p, x: x @ p["v"], "fails on these params"),
    ],
)
def test_operations_that_cannot_be_run_alone(function, message):
    with pytest.raises(ValueError, match=message):
        operations(function, {"w": whole(2, 3, 3)}, whole(3, 3), ["w"])


def test_a_weight_left_out_may_be_anywhere():
    found = operations(
        lambda p, x: scanned(p, x) @ p["head"], {"w": whole(2, 3, 3), "head": whole(3, 1)}, X[0, 0, :3, :3], ["head"]
    )
    assert list(found) == ["head"]
