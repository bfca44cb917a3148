"""Training under fake quantization on the embedded digits: it learns, it is compiled once, and it ends up small."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial

import spartax as sx
from spartax import attacks, data, measure, models, quantize, train
from spartax.arrays import straight_through_inputs

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


XOR_X, XOR_Y = jnp.array([[0.0, 0], [0, 1], [1, 0], [1, 1]]).reshape(4, 1, 2, 1), jnp.array([0, 1, 1, 0])


def two_layers(params, x):
    """The signs that come before each weight are all that is not linear."""
    return ((2 * x.reshape(len(x), -1) - 1) @ params["first"] + params["shift"]) @ params["second"]


@functools.cache
def binary_xor():
    """Trained with weights and activations of one bit: (function, params)."""
    rng = np.random.default_rng(1)
    params = {"first": jnp.asarray(rng.normal(size=(2, 16)), jnp.float32), "shift": jnp.asarray(rng.normal(size=16))}
    params |= {"second": jnp.asarray(rng.normal(size=(16, 2)), jnp.float32)}
    apply = sx.compressed(two_layers)
    transform, tx = quantize.reste(100, every=50, activations=True), optax.adam(0.03)
    variables, method = train.begin(transform, apply, params, XOR_X, KEY)
    step = train.make_step(train.clean(), tx, apply)
    refresh = train.make_refresh(transform, train.clean(), tx, apply)
    state = train.init_state(variables, tx, method=method)
    state, _ = train.fit(step, state, [(XOR_X, XOR_Y)] * 100, KEY, refresh=refresh, progress=False)
    return apply, state.variables


def test_a_binary_xor():
    """No straight line tells the classes apart."""
    apply, variables = binary_xor()
    np.testing.assert_array_equal(jnp.argmax(apply(variables, XOR_X), -1), XOR_Y)
    np.testing.assert_array_equal(jnp.argmax(apply(sx.pack(variables), XOR_X), -1), XOR_Y)


def test_a_binary_network_whose_gradients_hide_how_weak_it_is():
    """One pixel past 1/2 turns the class, so nothing is robust at 0.6. Its gradients say all is, other routes half."""
    apply, variables = binary_xor()
    network = Partial(apply, sx.pack(variables))
    latent = {"shift": variables["shift"], **{p: variables[p].weight.weight for p in ("first", "second")}}
    routes = {
        "own": network,
        "straight-through": Partial(apply, straight_through_inputs(network.args[0])),
        "dense parent": Partial(two_layers, latent),
    }
    attackers = {"FGSM": attacks.fgsm(0.6), "PGD": attacks.pgd(0.6, steps=5), "Square": attacks.square(0.6, queries=30)}
    found = measure.robustness(attackers, network, XOR_X, XOR_Y, KEY, routes=routes)
    assert found.clean.all()
    assert not found.worst.any()
    assert not found.routes["queries"].any()
    assert found.routes["straight-through"].mean() < found.routes["own"].mean() == found.masking
