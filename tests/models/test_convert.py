"""Converted networks against loops over the PyTorch definition, stored counts and the published accuracies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from spartax import data, models

# name -> (first test images, how many of them are correct, percent correct of all 10,000)
PUBLISHED = {
    "cifar10_linf_cnn_a_adv": (512, 356, 67.21),
    "cifar10_linf2_resnet2b": (512, 353, 68.70),
    "mnist_linf01_convex": (512, 506, 98.20),
    "mnist_linf03_lenet5": (512, 505, 98.64),
    "mnist_std_lenet5": (512, 506, 98.89),
    "cifar10_resnet20": (512, 408, 81.03),
    "cifar10_resnet32": (128, 99, 82.56),
    "cifar10_resnet56": (128, 107, 83.20),
}


def torch_conv(x, weight, bias, stride, padding):
    """Convolution as PyTorch defines it, NCHW and OIHW, in loops."""
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    size = weight.shape[-1]
    height, width = ((side - size) // stride + 1 for side in x.shape[2:])
    out = np.zeros((x.shape[0], weight.shape[0], height, width))
    for i in range(height):
        for j in range(width):
            patch = x[:, :, i * stride : i * stride + size, j * stride : j * stride + size]
            out[:, :, i, j] = np.einsum("bchw,ochw->bo", patch, weight)
    return out + (0 if bias is None else bias[:, None, None])


def torch_norm(x, tensors, name):
    weight, bias, mean, var = (
        tensors[f"{name}.{field}"][:, None, None] for field in ("weight", "bias", "running_mean", "running_var")
    )
    return (x - mean) / np.sqrt(var + 1e-5) * weight + bias


def relu(x):
    return np.maximum(x, 0)


def random_tensors(shapes, seed=0):
    random = np.random.RandomState(seed)
    tensors = {}
    for name, shape in shapes.items():
        value = random.randn(*shape) / np.sqrt(max(1, np.prod(shape[1:])))
        tensors[name] = (np.abs(value) + 0.5 if name.endswith("running_var") else value).astype(np.float32)
    return tensors


def saved(folder, tensors, **metadata):
    path = folder / "model.safetensors"
    save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, path, metadata)
    return path


CNN_A_SHAPES = {
    "0.weight": (3, 2, 4, 4),
    "0.bias": (3,),
    "2.weight": (5, 3, 4, 4),
    "2.bias": (5,),
    "5.weight": (7, 5 * 2 * 2),
    "5.bias": (7,),
    "7.weight": (4, 7),
    "7.bias": (4,),
}


def test_flatten_order_by_hand(tmp_path):
    """One image, convolutions that copy pixels, and a linear layer that lists the feature map in PyTorch's order."""
    pick = np.zeros((1, 1, 4, 4), np.float32)
    pick[0, 0, 1, 1] = 1  # with padding 1 and stride 2: out[i, j] = in[2 i, 2 j]
    tensors = {
        "0.weight": pick,
        "0.bias": np.zeros(1, np.float32),
        "2.weight": np.concatenate([pick, 10 * pick]),  # channel 1 is ten times channel 0
        "2.bias": np.zeros(2, np.float32),
        "5.weight": np.eye(8, dtype=np.float32),
        "5.bias": np.zeros(8, np.float32),
        "7.weight": np.eye(8, dtype=np.float32),
        "7.bias": np.zeros(8, np.float32),
    }
    loaded = models.load(saved(tmp_path, tensors))
    x = np.arange(64, dtype=np.float32).reshape(1, 8, 8, 1) / 100
    kept = [0.00, 0.04, 0.32, 0.36]  # rows 0 and 4, columns 0 and 4
    np.testing.assert_allclose(loaded.apply(loaded.variables, x)[0], kept + [10 * v for v in kept], rtol=1e-6)


def test_cnn_a_equals_the_torch_definition(tmp_path):
    tensors = random_tensors(CNN_A_SHAPES)
    loaded = models.load(saved(tmp_path, tensors, mean="0.4,0.5", std="0.2,0.25"))
    assert loaded.info["input_shape"] == (8, 8, 2)
    assert loaded.info["classes"] == 4
    x = np.random.RandomState(1).rand(3, 8, 8, 2).astype(np.float32)
    h = ((x - [0.4, 0.5]) / [0.2, 0.25]).transpose(0, 3, 1, 2)
    h = relu(torch_conv(h, tensors["0.weight"], tensors["0.bias"], 2, 1))
    h = relu(torch_conv(h, tensors["2.weight"], tensors["2.bias"], 2, 1))
    h = relu(h.reshape(3, -1) @ tensors["5.weight"].T + tensors["5.bias"])
    expected = h @ tensors["7.weight"].T + tensors["7.bias"]
    np.testing.assert_allclose(jax.jit(loaded.apply)(loaded.variables, x), expected, rtol=1e-4, atol=1e-5)


def resnet_shapes(shortcut):
    """Two groups of one block, 3 and 6 channels."""
    shapes = {"conv1.weight": (3, 2, 3, 3), "linear.weight": (4, 6), "linear.bias": (4,)}
    shapes |= {"layer1.0.conv1.weight": (3, 3, 3, 3), "layer1.0.conv2.weight": (3, 3, 3, 3)}
    shapes |= {"layer2.0.conv1.weight": (6, 3, 3, 3), "layer2.0.conv2.weight": (6, 6, 3, 3)}
    norms = {"bn1": 3, "layer1.0.bn1": 3, "layer1.0.bn2": 3, "layer2.0.bn1": 6, "layer2.0.bn2": 6}
    if shortcut == "B":
        shapes["layer2.0.shortcut.0.weight"] = (6, 3, 1, 1)
        norms["layer2.0.shortcut.1"] = 6
    for name, width in norms.items():
        shapes |= {f"{name}.{field}": (width,) for field in ("weight", "bias", "running_mean", "running_var")}
    return shapes


def torch_block(x, tensors, name, stride, shortcut):
    y = relu(torch_norm(torch_conv(x, tensors[f"{name}.conv1.weight"], None, stride, 1), tensors, f"{name}.bn1"))
    y = torch_norm(torch_conv(y, tensors[f"{name}.conv2.weight"], None, 1, 1), tensors, f"{name}.bn2")
    if stride == 1:
        return relu(y + x)
    if shortcut == "B":
        x = torch_conv(x, tensors[f"{name}.shortcut.0.weight"], None, stride, 0)
        return relu(y + torch_norm(x, tensors, f"{name}.shortcut.1"))
    missing = y.shape[1] - x.shape[1]
    x = np.pad(x[:, :, ::2, ::2], ((0, 0), (missing // 2, missing - missing // 2), (0, 0), (0, 0)))
    return relu(y + x)


@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_resnet_equals_the_torch_definition(tmp_path, shortcut):
    tensors = random_tensors(resnet_shapes(shortcut))
    saved_as = {f"module.{name}": value for name, value in tensors.items()}  # as data-parallel training saves them
    saved_as["module.bn1.num_batches_tracked"] = np.array([3])
    loaded = models.load(saved(tmp_path, saved_as))
    assert loaded.module.widths == (3, 6)
    assert loaded.module.depths == (1, 1)
    x = np.random.RandomState(1).rand(2, 6, 6, 2).astype(np.float32)
    h = x.transpose(0, 3, 1, 2)
    h = relu(torch_norm(torch_conv(h, tensors["conv1.weight"], None, 1, 1), tensors, "bn1"))
    h = torch_block(h, tensors, "layer1.0", 1, shortcut)
    h = torch_block(h, tensors, "layer2.0", 2, shortcut)
    expected = h.mean(axis=(2, 3)) @ tensors["linear.weight"].T + tensors["linear.bias"]
    np.testing.assert_allclose(jax.jit(loaded.apply)(loaded.variables, x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"0.weight": None}, r"nearest is cnn_a, which also needs 0\.weight"),
        ({"0.bias": None, "7.bias": None}, r"missing: 0\.bias, 7\.bias\."),
        ({"9.weight": (2, 2)}, r"unexpected: 9\.weight\."),
        ({"7.bias": (5,)}, r"of a wrong shape: 7\.bias \(5,\)\."),
        ({"0.bias": None, "9.weight": (2,)}, r"missing: 0\.bias; unexpected: 9\.weight\."),
        ({"5.weight": (7, 25)}, r"5\.weight must read 5 square feature maps; got 25 inputs"),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path, change, message):
    shapes = {name: shape for name, shape in (CNN_A_SHAPES | change).items() if shape is not None}
    with pytest.raises(ValueError, match=message):
        models.load(saved(tmp_path, random_tensors(shapes)))


def test_unknown_architecture_lists_the_known(tmp_path):
    path = saved(tmp_path, {"embedding.weight": np.zeros((2, 2), np.float32)})
    message = r"none of the known architectures cnn_a, lenet5, resnet2b, resnet\. Its tensors: embedding\.weight"
    with pytest.raises(ValueError, match=message):
        models.load(path)


@pytest.fixture(scope="module")
def test_set(shared_data):
    sets = {}

    def get(name, split):
        if (name, split) not in sets:
            sets[name, split] = data.load(name, split, shared_data)
        return sets[name, split]

    return get


def correct(loaded, dataset, batch_size):
    apply = jax.jit(loaded.apply)
    batches = data.batches(dataset, batch_size)
    return sum(int(jnp.sum(jnp.argmax(apply(loaded.variables, x), -1) == y)) for x, y, _ in batches)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.nightly] if name.endswith(("32", "56")) else []) for name in PUBLISHED],
)
def test_published_weights_on_a_prefix(name, shared_data, test_set):
    path = shared_data / "weights" / f"{name}.safetensors"
    loaded = models.load(path)
    size, count, _ = PUBLISHED[name]
    assert correct(loaded, test_set(name.split("_")[0], f"test[:{size}]"), 128) == count
    stored = load_file(path)
    assert sum(v.size for v in jax.tree.leaves(loaded.variables)) == sum(v.size for v in stored.values())
    assert loaded.info["source"].startswith("github")


@pytest.mark.nightly
@pytest.mark.parametrize("name", [name for name in PUBLISHED if not name.endswith(("32", "56"))])
def test_published_accuracy(name, shared_data, test_set):
    loaded = models.load(shared_data / "weights" / f"{name}.safetensors")
    percent = correct(loaded, test_set(name.split("_")[0], "test"), 500) / 100
    assert percent == pytest.approx(PUBLISHED[name][2], abs=0.05)
