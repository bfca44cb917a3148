import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import spartax as sx
from spartax import prune, train
from spartax.records import Evidence, Layout

GIVEN = Evidence({"w": Layout((0,), (1,))})
WEIGHT = jnp.array([[3.0, 1.0], [-2.0, 0.5]])


def base(network, key, x, y):
    """`1/2 |w - WEIGHT|^2`."""
    return 0.5 * jnp.sum((sx.dense(network.variables["w"]) - WEIGHT) ** 2), {}


def value(params, rho):
    return train.radmm(base, rho)(train.Network(None, None, params), None, None, None)[0]


def test_projections_and_duals_by_hand():
    """Half of the entries are kept; W does not move. The third projection of `W + U` meets a tie at 2."""
    transform = prune.radmm(0.5)
    params, duals = transform.init({"w": WEIGHT}, GIVEN)
    np.testing.assert_array_equal(params["w"].point, [[3, 0], [-2, 0]])
    np.testing.assert_array_equal(duals["w"], np.zeros((2, 2)))
    params, duals, info = transform.update(params, duals, GIVEN)
    np.testing.assert_array_equal(duals["w"], [[0, 1], [0, 0.5]])
    np.testing.assert_array_equal(params["w"].point, [[3, -1], [-2, -0.5]])
    np.testing.assert_allclose(info["w"]["residual"], np.sqrt(1.25 / 14.25), rtol=1e-6)
    assert info["w"]["sparsity"] == 0.5
    params, duals, _ = transform.update(params, duals, GIVEN)  # W + U = 3, 2, -2, 1: the lower index stays
    np.testing.assert_array_equal(duals["w"], [[0, 0], [-2, 1]])
    np.testing.assert_array_equal(params["w"].point, [[3, 2], [2, -1]])
    np.testing.assert_array_equal(prune.finish(params)["w"], WEIGHT)


def test_the_loss_is_the_augmented_one_and_optimizers_leave_the_point():
    params, _ = prune.radmm(0.5).init({"w": WEIGHT + 1}, GIVEN)
    away = np.asarray(WEIGHT) + 1 - np.array([[4, 2], [0, 0]])
    np.testing.assert_allclose(value(params, 0.2), 0.5 * 4 + 0.1 * (away**2).sum(), rtol=1e-6)
    trainable, fixed = sx.split(params)
    gradient = jax.grad(lambda t: value(sx.merge(t, fixed), 0.2))(trainable)
    np.testing.assert_allclose(gradient["w"].weight, 1 + 0.2 * away, rtol=1e-6)
    assert gradient["w"].bits is None


def test_weights_and_their_projections_meet():
    """Under a convex loss W ends at the nearest sparse weights, which the loss alone would never be."""
    transform, tx = prune.radmm(0.5), optax.sgd(0.3)

    @jax.jit
    def descend(params):
        trainable, fixed = sx.split(params)

        def body(_, trainable):
            gradient = jax.grad(lambda t: value(sx.merge(t, fixed), 1.0))(trainable)
            return optax.apply_updates(trainable, tx.update(gradient, tx.init(trainable))[0])

        return sx.merge(jax.lax.fori_loop(0, 30, body, trainable), fixed)

    params, state = transform.init({"w": WEIGHT}, GIVEN)
    for _ in range(25):
        params, state, info = transform.update(descend(params), state, GIVEN)
    assert info["w"]["residual"] < 1e-3
    np.testing.assert_allclose(params["w"].weight, [[3, 0], [-2, 0]], atol=5e-3)


def test_patterns_and_steps():
    groups = prune.radmm(0.5, pattern=prune.n_of_m(1, 2), every=3)
    params, _ = groups.init({"w": WEIGHT}, GIVEN)
    np.testing.assert_array_equal(params["w"].point, [[3, 1], [0, 0]])  # one of the two inputs of each output
    assert [step for step in range(10) if groups.due(step)] == [3, 6, 9]


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (functools.partial(prune.radmm, 1.0), "sparsity must be"),
        (functools.partial(prune.radmm, every=0), "every must be"),
        (lambda: prune.radmm(0.9).init({"w": WEIGHT}, GIVEN), "w: no weight would be left"),
        (lambda: train.radmm(base, -1.0), "rho must be"),
        (lambda: value({"w": WEIGHT}, 1.0), "begin with prune.radmm"),
        (lambda: prune.radmm().update({"w": WEIGHT}, {}, GIVEN), "w holds no Pulled"),
        (lambda: prune.radmm().init(prune.twin_rep().init({"w": WEIGHT}, GIVEN)[0], GIVEN), "got a Twin"),
    ],
)
def test_bad_use_is_named(call, told):
    with pytest.raises(ValueError, match=told):
        call()
