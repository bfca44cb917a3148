"""Which parts of a network an attack moves most."""

import jax
import numpy as np

from experiments.robust_training import layers
from spartax import models, train


def test_the_parts_are_layers_after_their_activation_without_the_logits():
    module = models.MLP((3,), classes=2)
    kernels = np.array([[1.0, -1.0, 0.0], [0.0, 2.0, 1.0]]), np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    zeros = [{"kernel": k.astype(np.float32), "bias": np.zeros(k.shape[1], np.float32)} for k in kernels]
    x, attacked = np.array([[[[1.0], [0.0]]]], np.float32), np.array([[[[0.0], [0.0]]]], np.float32)
    variables = {"params": dict(zip(("linear1", "linear2"), zeros))}
    found = layers.parts(module)(variables, x)
    assert list(found) == ["linear1"]
    np.testing.assert_allclose(found["linear1"], [[1.0, 0.0, 0.0]])
    moved = train.sustainability(layers.parts(module), variables, x, attacked)
    assert moved == {"linear1": 1.0}


def test_of_a_residual_network_they_are_the_stem_and_the_outputs_of_blocks():
    """A stem whose normalization turns the sign, and blocks that pass on what they get."""
    module = models.ResNet((2, 2), (1, 1), 2, mean=(0.0,), std=(1.0,))
    x = np.random.default_rng(0).random((1, 4, 4, 1), np.float32)
    variables = jax.tree.map(np.zeros_like, jax.jit(module.init)(jax.random.key(0), x))
    params, stats = variables["params"], variables["batch_stats"]
    params["conv1"]["kernel"][1, 1, 0] = 1.0, -1.0
    params["bn1"]["scale"][:] = -1.0
    stats["bn1"]["var"][:] = 1.0 - 1e-5
    params["layer2_0"]["shortcut"]["kernel"][0, 0] = np.eye(2)
    params["layer2_0"]["shortcut_bn"]["scale"][:] = 1.0
    stats["layer2_0"]["shortcut_bn"]["var"][:] = 1.0 - 1e-5
    found = layers.parts(module)(variables, x)
    assert sorted(found) == ["bn1", "layer1_0", "layer2_0"]
    want = np.concatenate([0 * x, x], 3)
    np.testing.assert_allclose(found["bn1"], want, rtol=1e-5)
    np.testing.assert_allclose(found["layer1_0"], want, rtol=1e-5)
    np.testing.assert_allclose(found["layer2_0"], want[:, ::2, ::2], rtol=1e-5)
