"""Shrunk networks compute what the masked ones do, with the sizes that removal leaves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spartax as sx
from spartax import models, prune, quantize, tree
from spartax.program import resized
from tests.prune.channels import MODELS, conv, images, network, normal, removal, variables

BASIC_BLOCK = [  # golden: conv1-out = bn1 = conv2-in is a group of its own
    ("batch_stats/layer1_0/bn1/mean", 0, "vector"),
    ("batch_stats/layer1_0/bn1/var", 0, "vector"),
    ("params/layer1_0/bn1/bias", 0, "vector"),
    ("params/layer1_0/bn1/scale", 0, "vector"),
    ("params/layer1_0/conv1/kernel", 3, "output"),
    ("params/layer1_0/conv2/kernel", 2, "input"),
]


@pytest.mark.parametrize("name", MODELS)
def test_shrunk_equals_masked(name):
    apply, params, x = network(name)
    groups, _, small = removal(apply, params, x)
    seen = {}
    for group in groups.values():
        for m in group.members:
            assert len(m.indices) == group.size
            seen.setdefault((m.path, m.axis), []).extend(m.indices.ravel().tolist())
    assert all(len(set(indices)) == len(indices) for indices in seen.values())  # a channel is in one group
    assert small.report.macs[1] < 0.5 * small.report.macs[0]
    assert small.report.nbytes == (sx.nbytes(params), sx.nbytes(small.params))


def test_groups_of_a_residual_network():
    apply, params, x = network("resnet20_b")
    groups = sx.groups(apply, params, x)
    inner = groups["params/layer1_0/conv1/kernel"]
    assert [(m.path, m.axis, m.role) for m in inner.members] == BASIC_BLOCK
    stream = {(m.path, m.axis) for m in groups["params/conv1/kernel"].members if m.path.endswith("kernel")}
    blocks = [f"params/layer1_{i}" for i in range(3)]
    assert stream == {
        ("params/conv1/kernel", 3),
        *((f"{b}/conv2/kernel", 3) for b in blocks),
        *((f"{b}/conv1/kernel", 2) for b in blocks),
        ("params/layer2_0/conv1/kernel", 2),
        ("params/layer2_0/shortcut/kernel", 2),
    }
    assert groups["params/linear/kernel"].frozen == "output of the model"
    assert groups["params/conv1/kernel (2)"].frozen == "input of the model"
    assert [n for n, g in groups.items() if g.frozen] == ["params/conv1/kernel (2)", "params/linear/kernel"]


def test_padded_shortcuts_tie_the_middle_channels_of_the_next_stage():
    """4 channels become 6 and then 8, one zero channel on each side each time."""
    apply, params, x = network("resnet20_a")
    groups = sx.groups(apply, params, x)
    sizes = {name: g.size for name, g in groups.items() if not g.frozen and "conv1/kernel" not in name}
    assert sizes == {"params/layer2_0/conv2/kernel": 2, "params/layer3_0/conv2/kernel": 2}
    where = {(m.path, m.axis): m.indices.ravel().tolist() for m in groups["params/conv1/kernel"].members}
    assert where["params/conv1/kernel", 3] == [0, 1, 2, 3]
    assert where["params/layer2_1/conv2/kernel", 3] == [1, 2, 3, 4]
    assert where["params/linear/kernel", 0] == [2, 3, 4, 5]
    edge = {(m.path, m.axis): m.indices.ravel().tolist() for m in groups["params/layer2_0/conv2/kernel"].members}
    assert edge["params/layer3_0/conv1/kernel", 2] == [0, 5]
    assert edge["params/linear/kernel", 0] == [1, 6]


def test_multiply_adds_of_a_shrunk_network_by_hand():
    apply, params, x = network("resnet20_a")
    _, _, small = removal(apply, params, x)
    pixels = {"conv1": 64, "layer1": 64, "layer2": 16, "layer3": 4, "linear": 1}
    by_hand = [
        sum(pixels[path.split("/")[1][:6]] * w.size for path, w in tree.weights(p).items() if path.endswith("kernel"))
        for p in (params, small.params)
    ]
    assert small.report.macs == tuple(by_hand)


def test_heads_and_hidden_units_of_a_transformer():
    apply, params, x = network("vit")
    groups = sx.groups(apply, params, x)
    heads = groups["params/block_0/key/kernel"]
    assert heads.size == 3
    assert {m.path.split("/")[2] for m in heads.members} == {"query", "key", "value", "out"}
    for m in heads.members:
        np.testing.assert_array_equal(m.indices, np.arange(12).reshape(3, 4))
    hidden = groups["params/block_1/mlp1/kernel"]
    assert hidden.size == 48
    assert [m.path.split("/")[2:] for m in hidden.members] == [["mlp1", "bias"], ["mlp1", "kernel"], ["mlp2", "kernel"]]
    # The width goes through layer normalizations whose sums do not notice zeros; the number of tokens is fixed.
    assert groups["params/block_0/mlp2/kernel"].size == 12
    assert not groups["params/block_0/mlp2/kernel"].frozen
    assert groups["params/position"].frozen


def test_gradients_and_other_batch_sizes():
    apply, params, x = network("wide_resnet")
    _, masked, small = removal(apply, params, x)
    x = images(3, 8, 8, 3)
    gradient = lambda f, p: jax.jit(jax.grad(lambda x: jnp.sum(jnp.sin(f(p, x)))))(x)  # noqa: E731
    expected = gradient(apply, sx.dense(masked))
    np.testing.assert_allclose(gradient(small.apply, small.params), expected, rtol=1e-4, atol=1e-5)
    assert float(jnp.abs(expected).max()) > 1e-2


def test_custom_derivatives_are_kept():
    """relu'(0) = 0 is a rule of `jax.nn.relu`; a plain maximum has 1/2."""
    fn = lambda p, x: jax.nn.relu(x @ p["w0"]) @ p["w1"]  # noqa: E731
    params = normal((3, 4), (4, 2))
    _, _, small = removal(fn, params, jnp.ones((1, 3)))
    np.testing.assert_array_equal(jax.grad(lambda x: small.apply(small.params, x).sum())(jnp.zeros((1, 3))), 0)


def test_flatten_before_a_dense_layer():
    """Each of 3 channels is 4 rows of the dense kernel, 3 apart."""

    def fn(p, x):
        return jnp.tanh(conv(x, p["w0"])).reshape(x.shape[0], -1) @ p["w1"]

    params = normal((3, 3, 2, 3), (12, 5))
    name, rows = "w0", np.arange(12).reshape(4, 3).T
    groups, _, small = removal(fn, params, images(2, 2, 2, 2), {name: np.array([False, True, False])})
    np.testing.assert_array_equal(groups[name].members[1].indices, rows)
    np.testing.assert_array_equal(small.params["w1"], np.delete(params["w1"], rows[1], axis=0))
    assert small.report.macs == (4 * 9 * 2 * 3 + 12 * 5, 4 * 9 * 2 * 2 + 8 * 5)


def test_concatenated_features_keep_their_producers_apart():
    """Dense connections: the second convolution reads the first one's output and the input."""

    def fn(p, x):
        a = jax.nn.relu(conv(x, p["w0"]))
        b = jnp.concatenate([a, jax.nn.relu(conv(a, p["w1"]))], axis=-1)
        return jnp.mean(b, axis=(1, 2)) @ p["w2"]

    params = normal((3, 3, 2, 4), (3, 3, 4, 3), (7, 5))
    removed = {"w0": np.array([1, 0, 1, 0], bool), "w1": np.array([0, 0, 1], bool)}
    groups, _, small = removal(fn, params, images(2, 4, 4, 2), removed)
    assert [(m.path, m.axis) for m in groups["w0"].members] == [("w0", 3), ("w1", 2), ("w2", 0)]
    np.testing.assert_array_equal(small.params["w2"], params["w2"][np.array([1, 3, 4, 5])])


def test_depthwise_and_grouped_convolutions():
    def fn(p, x):
        h = jax.nn.relu(conv(x, p["w0"]))
        h = jax.nn.relu(conv(h, p["w1"], feature_group_count=6))  # depthwise, two outputs for each channel
        h = jax.nn.relu(conv(h, p["w2"], feature_group_count=3))  # three groups of four channels
        return jnp.max(h, axis=(1, 2)) @ p["w3"]

    params = normal((1, 1, 2, 6), (3, 3, 1, 12), (1, 1, 4, 9), (9, 4))
    groups, _, _ = removal(fn, params, images(2, 3, 3, 2), {"w0": np.array([False, True, False])})
    found = {(m.path, m.axis): m.indices.tolist() for m in groups["w0"].members}
    assert found["w0", 3] == [[0, 1], [2, 3], [4, 5]]  # two channels feed one group of the last convolution
    assert found["w1", 3] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert found["w3", 0] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


def test_shared_weights_lose_the_same_channels_on_both_sides():
    fn = lambda p, x: jnp.tanh(jnp.tanh(x @ p["w0"]) @ p["w1"]) @ p["w1"] @ p["w2"]  # noqa: E731
    groups, _, _ = removal(fn, normal((3, 4), (4, 4), (4, 2)), images(2, 3))
    assert [(m.path, m.axis) for m in groups["w0"].members] == [("w0", 1), ("w1", 0), ("w1", 1), ("w2", 0)]


def test_one_jitted_function_at_two_places():
    """Both calls share their program; they lose different channels."""
    layer = jax.jit(lambda h, w: jax.nn.relu(h @ w[None].reshape(w.shape)))
    fn = lambda p, x: layer(layer(x, p["w0"]), p["w1"]) @ p["w2"]  # noqa: E731
    removed = {"w0": np.array([1, 0, 0, 0], bool), "w1": np.array([0, 1, 1, 0], bool)}
    removal(fn, normal((4, 4), (4, 4), (4, 2)), images(2, 4), removed)


def test_control_flow_and_stacked_layers():
    """All layers of a scan lose the same channels; remat, cond and while are looked into."""

    def fn(p, x):
        h = x @ p["w0"]
        h, means = jax.lax.scan(jax.checkpoint(lambda h, w: (h + jnp.tanh(h @ w), jnp.sum(h, -1))), h, p["w1"])
        h = jax.lax.cond(x[0, 0] > 0.5, lambda h: h * p["w3"], lambda h: h - h * h, h)
        h = jax.lax.while_loop(lambda c: c[1] < 2, lambda c: (c[0] * p["w3"], c[1] + 1), (h, 0))[0]
        return h @ p["w2"] + means.sum(0)[:, None]

    groups, _, _ = removal(fn, normal((3, 5), (2, 5, 5), (5, 2), (5,)), images(2, 3))
    free = [g for g in groups.values() if not g.frozen]
    assert [[(m.path, m.axis) for m in g.members] for g in free] == [
        [("w0", 1), ("w1", 1), ("w1", 2), ("w2", 0), ("w3", 0)]
    ]


def test_a_layer_of_a_stack_that_still_feeds_a_channel_keeps_it():
    def fn(p, x):
        return jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x @ p["w0"], p["w1"])[0] @ p["w2"]

    params = normal((3, 5), (2, 5, 5), (5, 2))
    x = images(2, 3)
    masked = prune.mask_groups(sx.groups(fn, params, x), params, {"w0": np.arange(5) < 2})
    masked["w1"] = jnp.asarray(sx.dense(masked["w1"])).at[1, 3, 0].set(1.0).at[0, 3, 0].set(1.0)
    masked["w2"] = params["w2"]
    assert prune.shrink(fn, masked, x).report.removed == {"w0": (1, 5)}


def test_embeddings_sorting_slicing_splitting_stacking_and_tiling():
    def fn(p, ids):
        h = p["w0"][ids]  # rows stay, columns may go
        h = jnp.sort(h, axis=1) + jnp.flip(jnp.cumsum(h, axis=1), axis=1)
        a, b = jnp.split(jax.nn.silu(h @ p["w1"]), 2, axis=-1)
        c = jnp.max(jnp.stack([a, jnp.unstack(jnp.stack([b, a], 1), axis=1)[0]]), axis=0)
        return jnp.tile((c * b)[:, 0, :3], (1, 2)) @ p["w2"] + jnp.expand_dims(jnp.arange(2.0), 0)

    ids = jnp.array([[0, 1, 2], [3, 3, 1]])
    groups, _, _ = removal(fn, normal((4, 5), (5, 8), (6, 2)), ids)
    assert groups["w0"].size == 5
    assert [m.indices.tolist() for m in groups["w1"].members] == [[[0, 4], [1, 5], [2, 6]], [[0, 3], [1, 4], [2, 5]]]
    assert groups["w0 (2)"].frozen == "looked up by gather"


def test_groups_of_a_group_normalization_go_whole():
    def fn(p, x):
        h = conv(x, p["w0"])
        g = h.reshape(*h.shape[:-1], 3, 2)
        g = g - jnp.mean(g, axis=(1, 2, 4), keepdims=True)
        g = g * jax.lax.rsqrt(jnp.mean(g**2, axis=(1, 2, 4), keepdims=True) + 1e-5)
        return jnp.mean(jax.nn.relu(g.reshape(h.shape) * p["w1"]), axis=(1, 2)) @ p["w2"]

    groups, _, _ = removal(fn, normal((3, 3, 2, 6), (6,), (6, 4)), images(2, 4, 4, 2))
    assert groups["w0"].members[0].indices.tolist() == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize(
    ("mix", "why"),
    [
        (lambda h: h - jnp.mean(h - jnp.mean(h, -1, keepdims=True) ** 2, -1, keepdims=True), "does not vanish"),
        (lambda h: jax.nn.softmax(h), "reduce_max"),
        (lambda h: h * jnp.arange(4.0), "iota"),
        (lambda h: jnp.cumsum(h, axis=-1), "cumsum"),
        (lambda h: jnp.exp(h).sum(-1, keepdims=True) + h, "does not vanish"),
        (
            lambda h: (h + jnp.maximum(jnp.full(4, -1.0), jnp.full(4, -2.0))).sum(-1, keepdims=True) + h,
            "does not vanish",
        ),
        (
            lambda h: (h + jnp.pad(h[:, :1], ((0, 0), (3, 0)), constant_values=1)).sum(-1, keepdims=True) + h,
            "not vanish",
        ),
        (lambda h: jax.nn.softplus(h).sum(-1, keepdims=True) + h, "does not vanish"),
        (lambda h: h.at[:, jnp.array([0, 9])].get(mode="fill", fill_value=1.0) @ jnp.ones((2, 4)) + h, "gather"),
        (lambda h: jnp.fft.fft(h).real, "read by fft"),
        (lambda h: h[:, jnp.array([1, 0, 3, 2])], "looked up by gather"),
    ],
)
def test_what_would_change_the_rest_is_frozen(mix, why):
    fn = lambda p, x: mix(x @ p["w0"]) @ p["w1"]  # noqa: E731
    params = {**normal((3, 4)), "w1": jnp.ones((4, 2))}
    groups = sx.groups(fn, params, jax.ShapeDtypeStruct((2, 3), jnp.float32))
    reasons = [g.frozen for g in groups.values() if any(m.path == "w0" and m.axis == 1 for m in g.members)]
    assert all(r is not None for r in reasons), reasons
    assert any(why in r for r in reasons), reasons


@pytest.mark.parametrize(
    "keep",
    [
        *(jax.nn.relu, jax.nn.relu6, jax.nn.gelu, jax.nn.silu, jax.nn.elu, jax.nn.leaky_relu, jax.nn.hard_swish),
        *(jnp.tanh, jax.nn.soft_sign, lambda h: jnp.clip(h, -1, 2), lambda h: jnp.where(h > 1, h, 0.5 * h)),
        *(lambda h: jnp.max(jnp.stack([h, 2 * h]), axis=0), lambda h: jnp.dot(h[:, None], h[:, None].mT)[:, 0] * h),
    ],
)
def test_sums_of_what_vanishes_do_not_freeze(keep):
    fn = lambda p, x: keep(x @ p["w0"]).sum(-1, keepdims=True)  # noqa: E731
    groups = sx.groups(fn, normal((3, 4)), jax.ShapeDtypeStruct((2, 3), jnp.float32))
    assert (groups["w0"].size, groups["w0"].frozen) == (4, None)


def test_a_constant_that_still_acts_is_not_removed():
    """relu(bias) of a channel without weights goes on acting until the bias or what reads it is zero too."""
    fn = lambda p, x: jax.nn.relu(x @ p["w0"] + p["w1"]) @ p["w2"]  # noqa: E731
    params, x = {**normal((3, 4), (4,), (4, 2)), "w1": jnp.ones(4)}, images(2, 3)
    params["w0"] = params["w0"].at[:, jnp.array([1, 2])].set(0.0)
    stuck = prune.shrink(fn, params, x)
    assert stuck.report.removed == {}
    assert list(stuck.report.left) == ["w0"]
    assert stuck.report.left["w0"].startswith("2 unfed channels")
    assert prune.shrink(fn, {**params, "w1": params["w1"].at[1].set(0.0)}, x).params["w0"].shape == (3, 3)
    unread = {**normal((3, 4), (4,), (4, 2)), "w2": params["w2"].at[3].set(0.0)}
    assert prune.shrink(fn, unread, x).report.removed == {"w0": (1, 4)}
    groups = sx.groups(fn, params, x)
    dead = prune.dead_channels(groups, params)
    np.testing.assert_array_equal(dead["w0"], [False, True, True, False])
    assert prune.shrink(fn, prune.mask_groups(groups, params, dead), x).report.removed == {"w0": (2, 4)}


def test_zero_channels_of_a_pattern_reach_the_normalization():
    """The `channels` pattern prunes kernels alone; their normalizations follow through `dead_channels`."""
    module = models.ResNet((4,), (1,), 4)
    x = images(2, 6, 6, 3)
    apply, params = models.eval_apply(module), variables(module, x[:1])
    kernel = params["params"]["layer1_0"]["conv1"]["kernel"]
    params["params"]["layer1_0"]["conv1"]["kernel"] = kernel.at[..., jnp.array([0, 3])].set(0.0)
    groups = sx.groups(apply, params, x)
    masked = prune.mask_groups(groups, params, prune.dead_channels(groups, params))
    assert isinstance(masked["params"]["layer1_0"]["bn1"]["bias"], sx.Masked)
    assert not isinstance(masked["batch_stats"]["layer1_0"]["bn1"]["mean"], sx.Masked)
    small = prune.shrink(apply, masked, x)
    assert small.report.removed == {"params/layer1_0/conv1/kernel": (2, 4)}
    np.testing.assert_allclose(small.apply(small.params, x), jax.jit(apply)(sx.dense(masked), x), rtol=1e-5, atol=1e-6)


def test_one_channel_of_a_dead_layer_stays():
    fn = lambda p, x: jax.nn.relu(x @ p["w0"]) @ p["w1"] + p["w2"]  # noqa: E731
    params = normal((3, 4), (4, 2), (2,))
    params["w0"] = jnp.zeros_like(params["w0"])
    small = prune.shrink(fn, params, images(2, 3))
    assert small.params["w1"].shape == (1, 2)
    np.testing.assert_allclose(small.apply(small.params, images(2, 3)), np.tile(params["w2"], (2, 1)))


def test_nnx_state():
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.conv, self.norm = nnx.Conv(2, 4, (3, 3), rngs=rngs), nnx.BatchNorm(4, rngs=rngs)
            self.dropout, self.dense = nnx.Dropout(0.5, rngs=rngs), nnx.Linear(16, 3, rngs=rngs)

        def __call__(self, x):
            x = nnx.relu(self.norm(self.conv(x), use_running_average=True))
            return self.dense(self.dropout(x.reshape(x.shape[0], -1), deterministic=True))

    graph, state = nnx.split(Net(nnx.Rngs(0)))
    fn, x = lambda state, x: nnx.merge(graph, state)(x), images(2, 2, 2, 2)
    groups = sx.groups(fn, state, x)
    masked = prune.mask_groups(groups, state, {"conv/kernel": np.array([1, 0, 0, 1], bool)})
    small = prune.shrink(fn, masked, x)
    shapes = {path: w.shape for path, w in tree.weights(small.params).items() if tree.is_floating(w)}
    assert shapes == {
        **dict.fromkeys(["conv/bias", "norm/bias", "norm/mean", "norm/scale", "norm/var"], (2,)),
        **{"conv/kernel": (3, 3, 2, 2), "dense/kernel": (8, 3), "dense/bias": (3,)},
    }
    np.testing.assert_allclose(small.apply(small.params, x), jax.jit(fn)(sx.dense(masked), x), rtol=1e-5, atol=1e-6)


def test_equinox_with_channels_first():
    eqx = pytest.importorskip("equinox")
    keys = jax.random.split(jax.random.key(0), 3)
    model = (eqx.nn.Conv2d(2, 4, 2, key=keys[0]), eqx.nn.Linear(16, 6, key=keys[1]), eqx.nn.Linear(6, 3, key=keys[2]))
    params, static = eqx.partition(model, eqx.is_array)

    def fn(params, x):
        conv, one, two = eqx.combine(params, static)
        return jax.vmap(lambda x: two(jax.nn.gelu(one(jnp.tanh(conv(x)).reshape(-1)))))(x)

    x = images(2, 2, 3, 3)
    groups = sx.groups(fn, params, x)
    free = [[(m.path, m.axis) for m in g.members] for g in groups.values() if not g.frozen]
    assert free == [
        [("0/weight", 0), ("0/bias", 0), ("1/weight", 1)],
        [("1/weight", 0), ("1/bias", 0), ("2/weight", 1)],
    ]
    masked = prune.mask_groups(groups, params, {name: np.arange(groups[name].size) < 2 for name in list(groups)[:2]})
    small = prune.shrink(fn, masked, x)
    np.testing.assert_array_equal(small.params[1].weight, params[1].weight[2:, 8:])
    np.testing.assert_allclose(small.apply(small.params, x), jax.jit(fn)(sx.dense(masked), x), rtol=1e-5, atol=1e-6)


def test_a_shrunk_network_is_compressed_like_any_other():
    fn = lambda p, x: jax.nn.relu(x @ p["w0"]) @ p["w1"]  # noqa: E731
    _, _, small = removal(fn, normal((3, 8), (8, 2)), images(2, 3))
    step = quantize.quantize(quantize.integer(bits=8))
    out = sx.compress(small.apply, small.params, step, batches=[images(2, 3)])
    assert isinstance(out.params["w0"], sx.Quantized)
    assert out.params["w0"].shape == (3, 4)
    exact = small.apply(sx.dense(out.params), images(2, 3))
    np.testing.assert_allclose(out.apply(out.params, images(2, 3)), exact, rtol=1e-5)


def test_bad_cuts_are_named():
    fn = lambda p, x: jax.nn.relu(x @ p["w0"]) @ p["w1"]  # noqa: E731
    params, x = normal((3, 4), (4, 2)), images(2, 3)
    with pytest.raises(ValueError, match="whole channels; w1 would lose \\[1\\] of axis 0"):
        resized(fn, params, {"w0": {1: np.array([1])}})(params, x)
    with pytest.raises(ValueError, match="cannot be removed: output of the model"):
        resized(fn, params, {"w1": {1: np.array([1])}})(params, x)
    with pytest.raises(ValueError, match="w0 holds NaN"):
        prune.shrink(fn, {**params, "w0": params["w0"].at[0, 0].set(jnp.nan)}, x)
    groups = sx.groups(fn, params, x)
    with pytest.raises(ValueError, match="Did you mean 'w0'"):
        prune.mask_groups(groups, params, {"w0x": np.zeros(4, bool)})
    with pytest.raises(ValueError, match=r"must have shape \(4,\); got \(3,\)"):
        prune.mask_groups(groups, params, {"w0": np.zeros(3, bool)})
    with pytest.raises(ValueError, match="output of the model"):
        prune.mask_groups(groups, params, {"w1": np.ones(2, bool)})
