"""Dead neurons of networks made by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spartax as sx
from spartax import program

pytestmark = pytest.mark.core
X = np.array([[1.0, 2.0], [3.0, -1.0], [-2.0, -1.0], [4.0, 4.0]], np.float32)
WEIGHT = jnp.array([[1.0, 0.0, -1.0, 0.0], [0.0, 1.0, 0.0, 0.0]])  # units x0, x1, -x0 and one always at zero


def hidden(params, x):
    return jax.nn.relu(x @ params["w"])


def test_rates_by_hand():
    """x0 is dead on one input, x1 on two, -x0 on three; the last unit is dead on all four and left out."""
    found = program.dead_neurons(hidden, {"w": WEIGHT}, [X])
    assert found == program.DeadNeurons(6 / 12, 6 / 16, 1 / 4, 4)


def test_static_is_judged_over_all_batches_and_labels_are_left_out():
    found = program.dead_neurons(hidden, {"w": WEIGHT}, [(X[:1], None), (X[1:], None)])
    assert found == program.dead_neurons(hidden, {"w": WEIGHT}, [X])


def test_every_unit_of_feature_maps_counts_through_jit_and_compressed_weights():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.Conv(3, (2, 2), padding="VALID", name="conv")(x))
            x = nn.max_pool(x, (2, 2))  # a maximum, but no rectified unit
            return jnp.maximum(nn.Dense(5, name="dense")(x.reshape(len(x), -1)), 0.0)

    x = jnp.asarray(np.random.default_rng(0).normal(size=(7, 4, 4, 2)), jnp.float32)
    variables = Net().init(jax.random.key(0), x)
    kernel = variables["params"]["conv"]["kernel"]
    variables["params"]["conv"]["kernel"] = sx.Masked(kernel, kernel > 0)
    found = program.dead_neurons(sx.compressed(Net().apply), variables, [x])
    _, seen = Net().apply(sx.dense(variables), x, capture_intermediates=True)
    seen = seen["intermediates"]
    pre = [seen["conv"]["__call__"][0], seen["dense"]["__call__"][0]]
    units = np.concatenate([np.asarray(p <= 0).reshape(7, -1) for p in pre], axis=1)
    alive = ~units.all(0)
    assert found.units == 27 + 5
    np.testing.assert_allclose(found.dynamic, units[:, alive].mean())
    np.testing.assert_allclose(found.static, 1 - alive.mean())


def test_a_network_without_rectified_units_and_no_batch():
    with pytest.raises(ValueError, match="no rectified unit"):
        program.dead_neurons(lambda p, x: jnp.tanh(x @ p["w"]), {"w": WEIGHT}, [X])
    with pytest.raises(ValueError, match="no rectified unit"):
        program.dead_neurons(
            lambda p, x: jax.lax.scan(lambda c, _: (jax.nn.relu(c), None), x @ p["w"], length=2)[0], {"w": WEIGHT}, [X]
        )
    with pytest.raises(ValueError, match="at least one batch"):
        program.dead_neurons(hidden, {"w": WEIGHT}, [])
