import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spartax import models

GRAY8, GRAY28, RGB32, RGB224 = (8, 8, 1), (28, 28, 1), (32, 32, 3), (224, 224, 3)

# module, input shape, trainable parameters as published (or added up by hand where no paper counts them)
COUNTS = {
    "mlp": (models.MLP(), GRAY8, 64 * 128 + 128 + 128 * 128 + 128 + 128 * 10 + 10),
    "cnn": (models.CNN(), GRAY8, 160 + 4_640 + 18_496 + 256 * 64 + 64 + 650),
    "cnn28": (models.CNN(), GRAY28, 224_714),
    "lenet5": (models.LeNet5(), GRAY28, 648_226),
    "cnn_a": (models.CNNA(), RGB32, 214_918),
    "convex_mnist": (models.convex_mnist(), GRAY28, 166_406),
    "resnet2b": (models.ResNet2B(), RGB32, 112_006),
    "resnet8": (models.resnet8(), RGB32, 75_290),
    "resnet20": (models.resnet20(), RGB32, 269_722),
    "resnet20_b": (models.resnet20(shortcut="B"), RGB32, 272_474),
    "resnet32": (models.resnet32(), RGB32, 464_154),
    "resnet56": (models.resnet56(), RGB32, 853_018),
    "resnet18": (models.resnet18(), RGB32, 11_173_962),
    "preact_resnet18": (models.preact_resnet18(), RGB32, 11_172_170),
    "vgg16_bn": (models.vgg16_bn(), RGB32, 14_724_042),
    "wrn_16_8": (models.wide_resnet(16, 8), RGB32, 10_961_370),
    "wrn_28_10": (models.wide_resnet(), RGB32, 36_479_194),
    "wrn_34_10": (models.wide_resnet(34), RGB32, 46_160_474),
    "vit": (models.ViT(), RGB32, 2_693_578),
    "deit_tiny": (models.ViT(16, depth=12, classes=1000), RGB224, 5_717_416),
}
NORMALIZED = ("resnet8", "resnet20_b", "preact_resnet18", "vgg16_bn", "wrn_16_8")


def uniform(*shape):
    return np.random.RandomState(0).rand(*shape).astype(np.float32)


def init(module, x):
    """Initial values drawn with NumPy: compiling the real initializers would take most of the time of these tests."""
    random = np.random.RandomState(1)

    def fill(path, leaf):
        if path[-1].key in ("scale", "var"):
            return np.ones(leaf.shape, np.float32)
        size = np.sqrt(np.prod(leaf.shape[:-1])) if path[-1].key == "kernel" else 10
        return (random.randn(*leaf.shape) / size).astype(np.float32)

    return jax.tree_util.tree_map_with_path(fill, jax.eval_shape(module.init, jax.random.key(0), x))


def shapes(module, shape, batch=2):
    x = jax.ShapeDtypeStruct((batch, *shape), jnp.float32)
    return x, jax.eval_shape(module.init, jax.random.key(0), x)


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_count_layouts_and_logits(name):
    module, shape, count = COUNTS[name]
    x, variables = shapes(module, shape)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == count
    logits = jax.eval_shape(models.eval_apply(module), variables, x)
    assert (logits.shape, logits.dtype) == ((2, module.classes), jnp.float32)
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables["params"]):
        if path[-1].key == "kernel":  # [in, out] or [H, W, in, out], nothing else
            assert leaf.ndim == 2 or (leaf.ndim == 4 and leaf.shape[0] == leaf.shape[1] <= 16)


@pytest.mark.parametrize("name", NORMALIZED)
def test_training_updates_batch_statistics_only(name):
    module, shape, _ = COUNTS[name]
    x, variables = shapes(module, shape)
    logits, changed = jax.eval_shape(functools.partial(module.apply, train=True, mutable=["batch_stats"]), variables, x)
    assert logits.shape == (2, 10)
    assert changed == {"batch_stats": variables["batch_stats"]}


def tiny(block=models.BasicBlock, preact=False):
    return models.ResNet((4, 8), (1, 1), 4, block, preact, classes=3, mean=(0.5,), std=(0.25,))


@pytest.mark.parametrize("module", [tiny(), tiny(models.PreActBlock, True)])
def test_batch_norm_path(module):
    x = uniform(4, 8, 8, 3)
    variables = init(module, x)
    train = jax.jit(functools.partial(module.apply, train=True, mutable=["batch_stats"]))
    apply = jax.jit(models.eval_apply(module))
    logits, changed = train(variables, x)
    np.testing.assert_array_equal(apply(variables, x), apply(variables, x))
    assert np.abs(logits - apply(variables, x)).max() > 1e-2  # batch statistics differ from the initial running ones
    for _ in range(200):
        _, changed = train({**variables, **changed}, x)
    np.testing.assert_allclose(apply({**variables, **changed}, x), logits, atol=2e-3)  # they have converged


def test_running_statistics_keep_nine_tenths():
    module = tiny()
    x = uniform(4, 8, 8, 3)
    variables = init(module, x)
    _, changed = jax.jit(functools.partial(module.apply, train=True, mutable=["batch_stats"]))(variables, x)
    kernel = variables["params"]["conv1"]["kernel"]
    y = jax.lax.conv_general_dilated(
        (x - np.float32(0.5)) / np.float32(0.25),
        kernel,
        (1, 1),
        ((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    np.testing.assert_allclose(
        changed["batch_stats"]["bn1"]["mean"],
        0.9 * variables["batch_stats"]["bn1"]["mean"] + 0.1 * y.mean((0, 1, 2)),
        atol=1e-5,
    )
    np.testing.assert_allclose(changed["batch_stats"]["bn1"]["var"], 0.9 + 0.1 * y.var((0, 1, 2)), rtol=1e-4)


@pytest.mark.parametrize("module", [models.MLP((5,)), models.CNN((4, 4), 8), models.CNNA((2, 2), 5, mean=(0.4,))])
def test_models_without_statistics_ignore_train(module):
    x = uniform(2, 8, 8, 1)
    variables = init(module, x)
    assert set(variables) == {"params"}
    train, evaluate = (jax.jit(functools.partial(module.apply, train=train)) for train in (True, False))
    np.testing.assert_array_equal(train(variables, x), evaluate(variables, x))


def test_mlp_is_the_textbook_formula():
    module = models.MLP((3,), classes=2, mean=(0.5,), std=(0.1,))
    x = uniform(4, 2, 3, 1)
    variables = init(module, x)
    p = jax.tree.map(np.asarray, variables["params"])
    h = (x.reshape(4, 6) - 0.5) / 0.1
    h = np.maximum(h @ p["linear1"]["kernel"] + p["linear1"]["bias"], 0)
    expected = h @ p["linear2"]["kernel"] + p["linear2"]["bias"]
    np.testing.assert_allclose(jax.jit(module.apply)(variables, x), expected, rtol=1e-4, atol=1e-5)


def test_normalization_is_inside():
    """Scaling the input and the statistics together changes nothing."""
    x = uniform(2, 4, 4, 2)
    plain = models.MLP((5,))
    inside = models.MLP((5,), mean=(0.2, 0.4), std=(0.5, 0.25))
    variables = init(plain, x)
    outside = (x - np.array([0.2, 0.4], np.float32)) / np.array([0.5, 0.25], np.float32)
    np.testing.assert_allclose(inside.apply(variables, x), plain.apply(variables, outside), rtol=1e-5, atol=1e-6)


def test_shortcut_a_keeps_every_second_pixel_and_pads_channels_on_both_sides():
    block = models.BasicBlock(6, 2, shortcut="A")
    x = uniform(1, 4, 4, 3)
    variables = jax.tree.map(np.zeros_like, init(block, x))  # the branch is zero
    out = jax.jit(block.apply)(variables, x)
    np.testing.assert_array_equal(out[..., 1:4], x[:, ::2, ::2])
    np.testing.assert_array_equal(out[..., [0, 4, 5]], 0)


def test_preact_block_is_the_identity_when_its_branch_is_zero():
    block = models.PreActBlock(3)
    x = uniform(1, 4, 4, 3) - np.float32(0.5)
    variables = jax.tree.map(np.zeros_like, init(block, x))
    np.testing.assert_array_equal(jax.jit(block.apply)(variables, x), x)  # no ReLU after the sum
    projected = init(models.PreActBlock(5, 2), x)["params"]
    assert projected["shortcut"]["kernel"].shape == (1, 1, 3, 5)


def attention(x, p, heads):
    """Multi-head attention, head by head."""
    q, k, v = (x @ p[name]["kernel"] + p[name]["bias"] for name in ("query", "key", "value"))
    size = x.shape[-1] // heads
    out = np.zeros_like(x)
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        for row in range(x.shape[0]):
            scores = q[row, :, part] @ k[row, :, part].T / np.sqrt(size)
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            out[row, :, part] = weights / weights.sum(-1, keepdims=True) @ v[row, :, part]
    return out @ p["out"]["kernel"] + p["out"]["bias"]


def layer_norm(x, p):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return x * p["scale"] + p["bias"]


def test_vit_is_the_textbook_formula():
    module = models.ViT(patch=2, width=6, depth=1, heads=2, classes=3, mean=(0.0,), std=(1.0,))
    x = uniform(2, 4, 6, 1)
    variables = init(module, x)
    p = jax.tree.map(np.asarray, variables["params"])
    patches = x.reshape(2, 2, 2, 3, 2, 1).transpose(0, 1, 3, 2, 4, 5).reshape(2, 6, 4)
    tokens = patches @ p["embed"]["kernel"].reshape(4, 6) + p["embed"]["bias"]
    h = np.concatenate([np.repeat(p["token"], 2, axis=0), tokens], axis=1) + p["position"]
    block = p["block_0"]
    h = h + attention(layer_norm(h, block["norm1"]), block, heads=2)
    y = layer_norm(h, block["norm2"]) @ block["mlp1"]["kernel"] + block["mlp1"]["bias"]
    y = np.asarray(jax.scipy.special.erf(y / np.sqrt(2)) + 1) * y / 2
    h = h + y @ block["mlp2"]["kernel"] + block["mlp2"]["bias"]
    expected = layer_norm(h, p["norm"])[:, 0] @ p["linear"]["kernel"] + p["linear"]["bias"]
    np.testing.assert_allclose(jax.jit(module.apply)(variables, x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: models.resnet_cifar(21), "depth must be 6 n [+] 2 .*got 21"),
        (lambda: models.resnet_cifar(2), "depth must be an integer of at least 8; got 2"),
        (lambda: models.resnet20(shortcut="a"), "shortcut must be one of 'A', 'B'; got 'a'"),
        (lambda: models.wide_resnet(20, 4), "depth must be 6 n [+] 4 .*got 20"),
        (lambda: models.wide_resnet(28, 0), "widen must be an integer of at least 1; got 0"),
        (
            lambda: shapes(models.resnet8(), GRAY28),
            r"mean must have one entry, or one for each of 1 channels; got \(0.4914",
        ),
        (lambda: shapes(models.ViT(patch=5), RGB32), "patch must divide the image height and width; got 5"),
        (lambda: shapes(models.ViT(heads=5), RGB32), "heads must divide the width 192; got 5"),
        (lambda: shapes(models.vgg16_bn(mean=(0.5,), std=(0.5,)), GRAY28), "at least 32x32 pixels"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
