"""Which parts of a network an attack moves most."""

import numpy as np

from experiments.robust_training import layers
from spartax import models, train


def test_the_parts_are_the_layers_with_their_own_outputs():
    module = models.MLP((3,), classes=2)
    kernels = np.array([[1.0, -1.0, 0.0], [0.0, 2.0, 1.0]]), np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    zeros = [{"kernel": k.astype(np.float32), "bias": np.zeros(k.shape[1], np.float32)} for k in kernels]
    x, attacked = np.array([[[[1.0], [0.0]]]], np.float32), np.array([[[[0.0], [0.0]]]], np.float32)
    variables = {"params": dict(zip(("linear1", "linear2"), zeros))}
    found = layers.parts(module)(variables, x)
    np.testing.assert_allclose(found["linear1"], [[1.0, -1.0, 0.0]])
    np.testing.assert_allclose(found["linear2"], [[1.0, 0.0]])  # of max(0, hidden)
    moved = train.sustainability(layers.parts(module), variables, x, attacked)
    assert moved == {"linear1": 1.0, "linear2": 1.0}
