"""Training under fake quantization on the embedded digits: it learns, it is compiled once, and it ends up small."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import spartax as sx
from spartax import data, models, quantize, train

pytestmark = pytest.mark.core
KEY = jax.random.key(0)
MODULE = models.MLP((24,))


@functools.cache
def images(split):
    found = data.load("digits", split)
    return jnp.asarray(found.x), jnp.asarray(found.y)


@functools.cache
def trained():
    """A float network."""
    variables = jax.jit(MODULE.init)(KEY, images("train")[0][:1])
    return run(variables, optax.adam(0.03), 60)[0].variables


def run(variables, tx, steps, transform=None, apply=MODULE.apply, method=None):
    """Steps on all training images; (state, losses)."""
    step = train.make_step(train.clean(), tx, apply)
    refresh = None if transform is None else train.make_refresh(transform, train.clean(), tx, apply)
    state = train.init_state(variables, tx, method=method)
    return train.fit(step, state, [images("train")] * steps, KEY, refresh=refresh, progress=False)


def counted():
    """(apply, how often the network was traced)."""
    traces = []

    def apply(variables, x):
        traces.append(1)
        return MODULE.apply(variables, x)

    return sx.compressed(apply), traces


def accuracy(apply, variables):
    x, y = images("test")
    return float(jnp.mean(jnp.argmax(jax.jit(apply)(variables, x), -1) == y))


def test_lsq_at_2_bits_is_better_than_rounding_to_nearest():
    x = images("train")[0]
    nearest = sx.compress(MODULE.apply, trained(), quantize.quantize(quantize.integer(2)), batches=[x[:8]])
    transform, (apply, traces) = quantize.lsq(2, activations=2), counted()
    variables, method = train.begin(transform, apply, trained(), x[:8], KEY)
    before = len(traces)
    state, losses = run(variables, optax.adam(3e-3), 40, transform, apply, method)
    assert len(traces) - before <= 2  # the step, and the statistics of the first batch
    assert losses[-1] < 0.7 * losses[0]
    packed = sx.pack(state.variables)
    float_, lsq, plain = accuracy(apply, trained()), accuracy(apply, packed), accuracy(apply, nearest.params)
    assert float_ > 0.93
    assert lsq > max(plain, 0.88)
    assert sx.nbytes(packed) < 0.11 * sx.nbytes(trained())
    for name in ("linear1", "linear2"):
        kernel = state.variables["params"][name]["kernel"]
        assert len(np.unique(sx.dense(kernel))) <= 4
        np.testing.assert_array_equal(sx.dense(packed["params"][name]["kernel"]), sx.dense(kernel))
