"""One network written five times: the same compressed values give the same logits in all of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spartax as sx
from tests import leaves

CONV, DENSE = (3, 3, 2, 4), (64, 10)
X = leaves.normal(3, 4, 4, 2, seed=7)
NAMES = ["LowRank", "Quantized int4 grouped", "Masked", "Sum", "LowRank of Quantized"]


def weights(name):
    return {
        "conv": leaves.examples(CONV)[name],
        "conv_bias": leaves.normal(4, seed=8),
        "dense": leaves.examples(DENSE)[name],
        "dense_bias": leaves.normal(10, seed=9),
    }


def plain(p, x):
    x = jax.lax.conv_general_dilated(x, p["conv"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    x = jax.nn.relu(x + p["conv_bias"]).reshape(x.shape[0], -1)
    return x @ p["dense"] + p["dense_bias"]


@pytest.fixture(params=NAMES)
def case(request):
    w = weights(request.param)
    return w, plain(sx.dense(w), X)


def close(ours, expected):
    np.testing.assert_allclose(ours, expected, atol=2e-5 * float(jnp.abs(expected).max()))


@pytest.mark.core
def test_plain_function(case):
    w, expected = case
    close(sx.compressed(plain)(w, X), expected)


@pytest.mark.core
def test_linen(case):
    import flax.linen as nn

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.Conv(4, (3, 3))(x))
            return nn.Dense(10)(x.reshape(x.shape[0], -1))

    w, expected = case
    params = {
        "Conv_0": {"kernel": w["conv"], "bias": w["conv_bias"]},
        "Dense_0": {"kernel": w["dense"], "bias": w["dense_bias"]},
    }
    assert set(sx.inspect(Net().apply, {"params": params}, X)) >= {"params/Conv_0/kernel"}
    close(sx.compressed(Net().apply)({"params": params}, X), expected)


@pytest.mark.core
def test_nnx_pure_dictionary_and_state(case):
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.conv = nnx.Conv(2, 4, (3, 3), rngs=rngs)
            self.dense = nnx.Linear(64, 10, rngs=rngs)

        def __call__(self, x):
            return self.dense(nnx.relu(self.conv(x)).reshape(x.shape[0], -1))

    w, expected = case
    graph, state = nnx.split(Net(nnx.Rngs(0)))
    new = {"conv/kernel": w["conv"], "conv/bias": w["conv_bias"], "dense/kernel": w["dense"],
           "dense/bias": w["dense_bias"]}  # fmt: skip
    from spartax import tree

    close(sx.compressed(lambda s, x: nnx.merge(graph, s)(x))(tree.replace(state, new), X), expected)
    pure = {"conv": {"kernel": w["conv"], "bias": w["conv_bias"]},
            "dense": {"kernel": w["dense"], "bias": w["dense_bias"]}}  # fmt: skip

    def apply(pure, x):
        full = nnx.state(nnx.merge(graph, state))
        nnx.replace_by_pure_dict(full, pure)
        return nnx.merge(graph, full)(x)

    close(sx.compressed(apply)(pure, X), expected)


def test_equinox(case):
    eqx = pytest.importorskip("equinox")
    w, expected = case
    keys = jax.random.split(jax.random.key(0))
    model = (eqx.nn.Conv2d(2, 4, 3, padding=1, key=keys[0]), eqx.nn.Linear(64, 10, key=keys[1]))
    from spartax.arrays import verbs

    def flipped(leaf, axes):
        moved = verbs.transpose(leaf, axes)
        return jnp.transpose(sx.dense(leaf), axes) if moved is None else moved

    # Equinox stores [O, I, H, W] and [O, I], and flattens channels first.
    order = np.arange(64).reshape(4, 4, 4).transpose(2, 0, 1).reshape(-1)
    dense = (
        verbs.transpose(verbs.take(w["dense"], order), (1, 0)) if verbs.take(w["dense"], order) is not None else None
    )
    if dense is None or not verbs.is_leaf(verbs.take(w["dense"], order)):
        dense = sx.dense(w["dense"])[order].T
    where = lambda m: (m[0].weight, m[0].bias, m[1].weight, m[1].bias)  # noqa: E731
    new = (flipped(w["conv"], (3, 2, 0, 1)), w["conv_bias"][:, None, None], dense, w["dense_bias"])
    params, static = eqx.partition(eqx.tree_at(where, model, new, is_leaf=verbs.is_leaf), eqx.is_array)

    def apply(params, x):
        conv, linear = eqx.combine(params, static)
        one = lambda x: linear(jax.nn.relu(conv(x)).reshape(-1))  # noqa: E731
        return jax.vmap(one)(jnp.transpose(x, (0, 3, 1, 2)))

    close(sx.compressed(apply)(params, X), expected)


def test_haiku(case):
    hk = pytest.importorskip("haiku")

    def forward(x):
        x = jax.nn.relu(hk.Conv2D(4, 3)(x))
        return hk.Linear(10)(x.reshape(x.shape[0], -1))

    w, expected = case
    net = hk.without_apply_rng(hk.transform(forward))
    params = {"conv2_d": {"w": w["conv"], "b": w["conv_bias"]}, "linear": {"w": w["dense"], "b": w["dense_bias"]}}
    close(sx.compressed(net.apply)(params, X), expected)
