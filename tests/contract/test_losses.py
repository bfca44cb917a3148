"""What every training loss obeys. Losses are found by file name; a new one needs a line in BUILD."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spartax as sx
from spartax import attacks, catalog, train, tree
from spartax.train.network import is_attacking

EPS, KEY = 0.1, jax.random.key(0)
RNG = np.random.default_rng(0)
X, Y = jnp.asarray(RNG.random((6, 5)), jnp.float32), jnp.asarray([0, 1, 2, 0, 1, 2], jnp.int32)
TEACHER = jnp.asarray(RNG.normal(size=(5, 3)), jnp.float32)
FIRST, SECOND = (jnp.asarray(RNG.normal(size=shape), jnp.float32) for shape in ((5, 4), (4, 3)))
MASK = jnp.asarray(RNG.random((5, 4)) < 0.7)


def norm_net(variables, x, stats=None):
    """Two layers with a batch normalization of the mean in between."""
    params = variables["params"]
    hidden = x @ params["first"]
    mean = jnp.mean(hidden, axis=0)
    kept = variables["batch_stats"]["mean"]
    hidden = jax.nn.softplus(hidden - (mean if stats else kept))
    logits = hidden @ params["second"] + params["bias"]
    return (logits, {"batch_stats": {"mean": 0.9 * kept + 0.1 * mean}}) if stats else logits


def activations(variables, x):
    return {
        "hidden": jax.nn.softplus(x @ sx.dense(variables["params"]["first"]) @ sx.dense(variables["params"]["second"]))
    }


ATTACK = attacks.pgd(EPS, steps=2)
BUILD = {
    "aaer": lambda: train.aaer(EPS),
    "ard": lambda: train.ard(lambda x: x @ TEACHER, ATTACK, alpha=0.7),
    "awp": lambda: train.awp(train.clean()),
    "class_weighted": lambda: train.class_weighted((1, 2, 3)),
    "clean": train.clean,
    "defensive_distillation": lambda: train.defensive_distillation(lambda x: x @ TEACHER),
    "distillation": lambda: train.distillation(lambda x: x @ TEACHER),
    "fgsm_rs": lambda: train.fgsm_rs(EPS),
    "grad_align": lambda: train.grad_align(train.clean(), EPS),
    "label_smoothing": train.label_smoothing,
    "layer_regularized": lambda: train.layer_regularized(ATTACK, activations, {"hidden": 0.5}),
    "mart": lambda: train.mart(ATTACK),
    "pgd_at": lambda: train.pgd_at(ATTACK),
    "rslad": lambda: train.rslad(lambda x: x @ TEACHER, EPS, steps=2),
    "smooth_comp_sum": lambda: train.smooth_comp_sum(EPS, steps=2),
    "trades": lambda: train.trades(EPS, steps=2),
    "tscnc": lambda: train.tscnc(train.clean(), ["params/second"]),
}
OF_LEAVES = {"lapp", "radmm"}  # need leaves of their own among the weights; see tests/train


def at(apply, forward, trainable):
    def network(trainable):
        variables = {"params": tree.merge(trainable, FIXED), "batch_stats": {"mean": jnp.full(4, 0.2)}}
        ways = functools.partial(apply, variables), functools.partial(forward, variables)
        return train.Network(*ways, variables, trainable, network)

    return network(trainable)


PARAMS = {"first": sx.Masked(FIRST, MASK), "second": SECOND, "bias": jnp.zeros(3)}
TRAINABLE, FIXED = tree.split(PARAMS)


def forward(variables, x):
    return norm_net(variables, x, stats=True)


def test_every_loss_is_here():
    assert set(BUILD) | OF_LEAVES == set(catalog.names(train.losses))


def test_those_that_attack_images_are_marked():
    """`train.fit` wants images in [0, 1] then; those around another loss are like it."""
    plain = {"class_weighted", "clean", "defensive_distillation", "distillation", "label_smoothing"}
    around = {"awp": train.awp, "grad_align": lambda base: train.grad_align(base, EPS), "radmm": train.radmm}
    around["tscnc"] = lambda base: train.tscnc(base, ["params/second"])
    marked = {name for name in BUILD if is_attacking(BUILD[name]())}
    assert marked == set(BUILD) - plain - set(around)
    for wrap in around.values():
        assert is_attacking(wrap(train.fgsm_rs(EPS)))
        assert not is_attacking(wrap(train.clean()))


@pytest.mark.parametrize("name", BUILD)
def test_value_and_gradient(name):
    """Finite, pure, the same compiled or not, through masks as on dense weights; statistics updated."""
    loss = BUILD[name]()
    ways = sx.compressed(norm_net), sx.compressed(forward)
    run = jax.jit(jax.value_and_grad(lambda t, key: loss(at(*ways, t), key, X, Y), has_aux=True))
    (value, updates), gradient = run(TRAINABLE, KEY)
    assert value.shape == ()
    assert value.dtype == jnp.float32
    assert np.isfinite(value)
    for array in jax.tree.leaves(gradient):
        assert np.all(np.isfinite(array))
        assert np.any(np.asarray(array) != 0)
    assert not np.asarray(gradient["first"].weight)[~np.asarray(MASK)].any()
    assert float(jnp.abs(updates["batch_stats"]["mean"] - 0.2).max()) > 1e-3
    jax.tree.map(np.testing.assert_array_equal, run(TRAINABLE, KEY), ((value, updates), gradient))

    dense = (lambda v, x: norm_net(sx.dense(v), x)), (lambda v, x: forward(sx.dense(v), x))
    plain, others = loss(at(*dense, TRAINABLE), KEY, X, Y)
    np.testing.assert_allclose(plain, value, rtol=2e-4)
    np.testing.assert_allclose(others["batch_stats"]["mean"], updates["batch_stats"]["mean"], rtol=1e-4, atol=1e-6)
