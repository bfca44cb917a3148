"""TSCNC: the two constraints, and the loss that adds them to another."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import spartax as sx
from spartax import train
from spartax.train.losses.tscnc import cnc, transformed_l1
from tests.oracles import golden

GOLDEN, KEY = golden.NUMBERS["tscnc"], jax.random.key(0)


def wave(*shape, a=1.0, b=0.7):
    i = np.arange(np.prod(shape))
    return (np.sin(a + 1.3 * i) + 0.5 * np.cos(b * i**2)).reshape(shape)


def test_golden_transformed_l1():
    points = jnp.array([0, 0.5, 1, -10])
    np.testing.assert_allclose(transformed_l1(points, 1.0), GOLDEN["tl1_a1"], rtol=1e-6)
    np.testing.assert_allclose(transformed_l1(points, 100.0), GOLDEN["tl1_a100"], rtol=1e-6)


def test_golden_condition_number_constraint():
    weight = wave(6, 3, a=0.1)
    np.testing.assert_allclose(cnc(jnp.asarray(weight, jnp.float32)), GOLDEN["cnc"], rtol=1e-4)
    np.testing.assert_allclose(cnc(jnp.asarray(weight.T, jnp.float32)), GOLDEN["cnc"], rtol=1e-4)  # the smaller side
    orthonormal = jnp.asarray(np.linalg.qr(weight)[0] * np.sqrt(3), jnp.float32)
    np.testing.assert_allclose(cnc(orthonormal), GOLDEN["cnc_orthonormal"], atol=1e-9)


def test_gradient_is_that_of_differences_and_finite_without_a_column():
    weight = wave(6, 3, a=0.1)

    def by_determinant(w):
        return np.log(1e-5 + np.linalg.det(w.T @ w / 3)) ** 2

    gradient = np.zeros_like(weight)
    for at in np.ndindex(weight.shape):
        step = np.zeros_like(weight)
        step[at] = 1e-6
        gradient[at] = (by_determinant(weight + step) - by_determinant(weight - step)) / 2e-6
    slope = jax.jit(jax.grad(cnc))
    np.testing.assert_allclose(slope(jnp.asarray(weight, jnp.float32)), gradient, rtol=1e-3, atol=1e-3)
    assert np.isfinite(slope(jnp.asarray(weight * [1, 0, 1], jnp.float32))).all()


def test_many_columns_whose_determinant_has_no_float():
    weight = jnp.eye(300) * np.sqrt(300) * 2.0
    np.testing.assert_allclose(cnc(weight), (300 * np.log(4.0)) ** 2, rtol=1e-4)


def network(params, x):
    return x @ params["w"] + params["b"]


def test_the_loss_is_the_sum_and_training_lowers_the_condition_number():
    weight, x = jnp.asarray(wave(6, 3, a=0.1), jnp.float32), jnp.ones((4, 6))
    mask = jnp.asarray(np.arange(18).reshape(6, 3) % 5 > 0)
    params = {"w": sx.Masked(weight, mask), "b": jnp.full(3, 9.0)}
    tx, y = optax.sgd(1e-2), jnp.zeros(4, jnp.int32)
    apply = sx.compressed(network)
    loss = train.tscnc(train.clean(), ["w"], sparse=0.5, conditioned=2.0, a=1.0)
    plain = train.make_step(train.clean(), tx, apply)(train.init_state(params, tx), KEY, x, y)[1]
    step, state = train.make_step(loss, tx, apply), train.init_state(params, tx)
    state, value = step(state, KEY, x, y)
    seen = np.where(mask, weight, 0)
    expected = (
        0.5 * np.mean(2 * np.abs(seen) / (1 + np.abs(seen))) + 2 * np.log(1e-5 + np.linalg.det(seen.T @ seen / 3)) ** 2
    )
    np.testing.assert_allclose(value - plain, expected, rtol=1e-3)
    for _ in range(150):
        state, _ = step(state, KEY, x, y)
    assert np.linalg.cond(np.asarray(sx.dense(state.variables["w"]))) < 0.8 * np.linalg.cond(seen)


def test_bad_arguments():
    with pytest.raises(ValueError, match="sparse must be in"):
        train.tscnc(train.clean(), ["w"], sparse=-1.0)
    with pytest.raises(ValueError, match="a must be positive; got 0"):
        train.tscnc(train.clean(), ["w"], a=0)
    with pytest.raises(ValueError, match="layers must name at least one weight"):
        train.tscnc(train.clean(), [])
    loss = train.tscnc(train.clean(), ["v"])
    params = {"w": jnp.ones((6, 3)), "b": jnp.ones(3)}
    step = train.make_step(loss, optax.sgd(0.1), network)
    with pytest.raises(ValueError, match="path must be one of 'b', 'w'; got 'v'"):
        step(train.init_state(params, optax.sgd(0.1)), KEY, jnp.ones((4, 6)), jnp.zeros(4, jnp.int32))
