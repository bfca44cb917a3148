import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import freeze

from spartax import program, train
from spartax.arrays import Masked


class Net(nn.Module):
    momentum: float = 0.9

    @nn.compact
    def __call__(self, x, train):
        x = nn.BatchNorm(use_running_average=not train, momentum=self.momentum, name="first")(x)
        x = nn.Dense(3, name="dense")(x)
        return nn.BatchNorm(use_running_average=not train, momentum=0.5, name="second")(x)


def network(momentum=0.9):
    module = Net(momentum)
    variables = module.init(jax.random.key(0), jnp.ones((2, 4)), train=False)
    return variables, lambda v, x: module.apply(v, x, train=True, mutable=["batch_stats"])


def batches(sizes=(32, 32, 16), shift=3.0):
    random = np.random.default_rng(0)
    return [(shift + 2 * random.standard_normal((n, 4))).astype(np.float32) for n in sizes]


@pytest.mark.parametrize("momentum", [0.0, 0.9, 0.99])
def test_statistics_are_the_mean_of_the_batch_statistics_whatever_the_momentum(momentum):
    variables, train_apply = network(momentum)
    data = batches()
    fresh = train.reestimate_batch_stats(train_apply, variables, data)
    weights = np.array([len(b) for b in data]) / sum(len(b) for b in data)
    first = fresh["batch_stats"]["first"]
    np.testing.assert_allclose(first["mean"], sum(w * b.mean(0) for w, b in zip(weights, data)), rtol=1e-4)
    np.testing.assert_allclose(first["var"], sum(w * b.var(0) for w, b in zip(weights, data)), rtol=1e-3)
    assert fresh["params"] is variables["params"]


def test_deeper_statistics_belong_to_normalized_inputs_and_compressed_weights():
    variables, train_apply = network()
    kernel = variables["params"]["dense"]["kernel"]
    mask = jnp.asarray(np.random.default_rng(1).random(kernel.shape) < 0.5)
    params = {**variables["params"], "dense": {**variables["params"]["dense"], "kernel": Masked(kernel, mask)}}
    (data,) = batches((64,))
    fresh = train.reestimate_batch_stats(
        program.compressed(train_apply), {**variables, "params": params}, [(data, np.zeros(64))]
    )
    normal = (data - data.mean(0)) / np.sqrt(data.var(0) + 1e-5)
    hidden = normal @ np.where(mask, kernel, 0)
    np.testing.assert_allclose(fresh["batch_stats"]["second"]["var"], hidden.var(0), rtol=1e-3)


def test_bad_input():
    variables, train_apply = network()
    with pytest.raises(ValueError, match="must hold batch_stats"):
        train.reestimate_batch_stats(train_apply, {"params": {}}, batches())
    with pytest.raises(ValueError, match="at least one batch"):
        train.reestimate_batch_stats(train_apply, variables, [])
    with pytest.raises(ValueError, match="does not update batch_stats"):
        train.reestimate_batch_stats(lambda v, x: (x, {"batch_stats": v["batch_stats"]}), variables, batches())


def test_frozen_collections_are_collections():
    """`init` of an older Flax gives a FrozenDict, and `apply` takes one; what it updates comes back as either."""
    variables, train_apply = network()
    expected = train.reestimate_batch_stats(train_apply, variables, batches())["batch_stats"]
    frozen_too = lambda v, x: (None, freeze(train_apply(v, x)[1]))  # noqa: E731
    for forward in (train_apply, frozen_too):
        found = train.reestimate_batch_stats(forward, freeze(variables), batches())["batch_stats"]
        assert jax.tree.structure(found) == jax.tree.structure(expected)
        jax.tree.map(np.testing.assert_array_equal, found, expected)
