import functools
import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

import spartax as sx
from spartax import models
from spartax.models.cnn_a import CNNA
from spartax.models.resnet import ResNet


def drawn(module, shape):
    """Variables with every array different, batch statistics among them."""
    like = jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *shape), np.float32))
    draw = np.random.default_rng(0)
    return jax.tree.map(lambda a: draw.random(a.shape, np.float32) + 0.5, like)


MODULES = {
    "resnet A": (ResNet((4, 6), (1, 2), 4, functools.partial(models.BasicBlock, shortcut="A")), (32, 32, 3)),
    "resnet B": (ResNet((4, 6), (1, 1), 4, functools.partial(models.BasicBlock, shortcut="B")), (32, 32, 3)),
    "cnn_a": (CNNA((2, 3), 5, 10, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)), (32, 32, 3)),
    "lenet5": (models.LeNet5((2, 3), 7), (28, 28, 1)),
}


@pytest.mark.parametrize("name", MODULES)
def test_load_gives_back_what_was_saved(tmp_path, name):
    module, shape = MODULES[name]
    variables = drawn(module, shape)
    models.save(tmp_path / "net.safetensors", module, variables, {"training": "adversarial, Linf 8/255"})
    found = models.load(tmp_path / "net.safetensors")
    jax.tree.map(np.testing.assert_array_equal, found.variables, variables)
    assert found.info["training"] == "adversarial, Linf 8/255"
    assert found.info["input_shape"] == shape
    for field in ("mean", "std"):
        assert tuple(getattr(found.module, field)) == tuple(getattr(module, field))
    x = np.random.default_rng(1).random((2, *shape), np.float32)
    np.testing.assert_array_equal(found.apply(variables, x), models.eval_apply(module)(variables, x))
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors"]
    less = found.variables | {"params": jax.tree.map(halved, found.variables["params"])}
    again = models.rebuilt(json.loads(json.dumps(found.info)), less)  # of notes and of compressed leaves
    assert repr(again.module) == repr(found.module)
    assert again.info == found.info


def halved(weight):
    """A leaf of the same shape."""
    return sx.Masked(weight, weight > 1) if weight.ndim > 1 else weight


def test_notes_of_another_network_are_refused():
    with pytest.raises(ValueError, match="must name a family, one of cnn_a"):
        models.rebuilt({}, {})
    with pytest.raises(ValueError, match="not those of a cnn_a"):
        models.rebuilt({"family": "cnn_a"}, {"params": {"conv1": {"kernel": np.ones((4, 4, 1, 2))}}})


def test_tensors_are_laid_out_as_in_pytorch(tmp_path):
    module, shape = MODULES["cnn_a"]
    variables = drawn(module, shape)
    models.save(tmp_path / "net.safetensors", module, variables)
    tensors, params = load_file(tmp_path / "net.safetensors"), variables["params"]
    assert tensors["0.weight"][1, 2, 0, 3] == params["conv1"]["kernel"][0, 3, 2, 1]
    assert tensors["5.weight"].shape == (5, 3 * 8 * 8)
    row, column, channel = 3, 6, 2  # of the flattened map
    assert (
        tensors["5.weight"][4, (channel * 8 + row) * 8 + column]
        == (params["linear1"]["kernel"][(row * 8 + column) * 3 + channel, 4])
    )


def test_a_module_that_load_would_not_know_is_refused(tmp_path):
    with pytest.raises(ValueError, match="module must be one of"):
        models.save(tmp_path / "net.safetensors", models.MLP(), {})
    with pytest.raises(ValueError, match="basic blocks"):
        models.save(tmp_path / "net.safetensors", models.preact_resnet18(), {})
    assert not list(tmp_path.iterdir())
