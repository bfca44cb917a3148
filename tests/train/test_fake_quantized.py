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


def test_a_binary_network_learns_while_o_rises():
    """Binary weights in both layers; o has six values in the run, and the step is compiled once."""
    x, module, traces = images("train")[0], models.MLP((64,)), []
    transform = quantize.reste(60, every=10)
    apply = sx.compressed(lambda variables, x: traces.append(1) or module.apply(variables, x))
    variables, method = train.begin(transform, apply, jax.jit(module.init)(KEY, x[:1]), x[:8], KEY)
    before = len(traces)
    tx = optax.adam(optax.cosine_decay_schedule(0.02, 60))
    state, losses = run(variables, tx, 60, transform, apply, method)
    assert len(traces) - before == 1
    assert 2.3 < state.method.info["params/linear1/kernel"]["o"] < 3
    packed = sx.pack(state.variables)
    assert losses[-1] < 0.2 * losses[0]
    assert accuracy(apply, packed) > 0.8
    assert sx.nbytes(packed["params"]["linear1"]["kernel"]) == 64 * 64 // 8 + 4


def test_a_binary_xor():
    """Weights and activations of one bit: no straight line tells the classes apart."""
    x = jnp.array([[0.0, 0], [0, 1], [1, 0], [1, 1]])
    y = jnp.array([0, 1, 1, 0])
    rng = np.random.default_rng(1)
    params = {"first": jnp.asarray(rng.normal(size=(2, 16)), jnp.float32), "shift": jnp.asarray(rng.normal(size=16))}
    params |= {"second": jnp.asarray(rng.normal(size=(16, 2)), jnp.float32)}
    apply = sx.compressed(lambda p, x: ((2 * x - 1) @ p["first"] + p["shift"]) @ p["second"])
    transform, tx = quantize.reste(100, every=50, activations=True), optax.adam(0.03)
    variables, method = train.begin(transform, apply, params, x, KEY)
    step = train.make_step(train.clean(), tx, apply)
    refresh = train.make_refresh(transform, train.clean(), tx, apply)
    state = train.init_state(variables, tx, method=method)
    state, _ = train.fit(step, state, [(x, y)] * 100, KEY, refresh=refresh, progress=False)
    np.testing.assert_array_equal(jnp.argmax(apply(state.variables, x), -1), y)
    np.testing.assert_array_equal(jnp.argmax(apply(sx.pack(state.variables), x), -1), y)
