"""ReSTE: golden slopes and schedule, the derivative of the scale, the two indicators, bits that are kept."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spartax as sx
from spartax import quantize
from spartax.arrays import FakeInputs, FakeQuantized, Sign
from spartax.quantize.reste import power_at
from spartax.records import Evidence, Layout
from tests import plugs

X = [-2, -1.5, -1, -0.5, -0.1, -0.05, 0, 0.05, 0.1, 0.100001, 0.7, 1.2, 1.6]
NEAR = {1: 1.0, 2: 3.162277660, 3: 4.641588834}
GOLDEN = {
    1: [0, 1, 1, 1, *[NEAR[1]] * 5, 1, 1, 1, 0],
    2: [0, 0.4082482905, 0.5, 0.7071067812, *[NEAR[2]] * 5, 1.5811309244, 0.5976143047, 0.4564354646, 0],
    3: [0, 0.2543809428, 0.3333333333, 0.529133684, *[NEAR[3]] * 5, 1.5471859633, 0.4228114294, 0.2951829359, 0],
}


def power(o, *shape):
    return jnp.full(shape, round(o * 2**16), jnp.int32)


@pytest.mark.parametrize("o", [1, 2, 3])
def test_golden_slopes_of_activations(o):
    x = jnp.array([X], jnp.float32)
    take = lambda x: sx.matmul(FakeInputs(jnp.eye(13), Sign(power(o))), x)  # noqa: E731
    np.testing.assert_array_equal(take(x)[0], np.where(np.array(X) < 0, -1, 1))
    np.testing.assert_allclose(jax.grad(lambda x: jnp.sum(take(x)))(x)[0], GOLDEN[o], rtol=1e-5)


def test_golden_schedule_and_what_an_update_sets():
    expected = [1.0, 1.152240935, 1.5857864376, 2.2346331353, 3.0]
    np.testing.assert_allclose([power_at(step, 4, 3.0) for step in range(5)], expected, rtol=1e-9)
    assert power_at(9, 4, 3.0) == 3.0
    given = plugs.evidence({"dense": plugs.draw()["dense"]})
    transform = quantize.reste(400, every=100, activations=True)
    params, state = transform.init(dict(given.originals), given)
    for step, o in zip((0, 100, 200, 300, 400), expected):
        assert transform.due(step)
        params, state, info = transform.update(params, state, given._replace(step=step))
        assert abs(info["dense"]["o"] - o) < 1e-9
        for sign in (params["dense"].quantizer, params["dense"].weight.quantizer):
            np.testing.assert_allclose(sign.power / 2**16, np.full(sign.power.shape, o), atol=1e-5)
    assert not transform.due(50)
    trainable, _ = sx.split(params)
    assert [x.shape for x in jax.tree.leaves(trainable)] == [(24, 20)]  # no optimizer sees o


def test_the_gradient_of_a_weight_by_hand():
    """`d sum(u sign(w) E|w|)`: the slope of the sign times the mean size, and the mean's own derivative."""
    rng = np.random.default_rng(0)
    w, u = rng.normal(size=(6, 5)), rng.normal(size=(6, 5))
    leaf = FakeQuantized(jnp.asarray(w, jnp.float32), Sign(power(2, 1, 1), scaled=True))
    value, grads = jax.value_and_grad(lambda x: jnp.sum(u * sx.dense(x)), allow_int=True)(leaf)
    size, sign = np.abs(w).mean(), np.where(w < 0, -1, 1)
    slope = np.where(np.abs(w) > 1.5, 0, np.where(np.abs(w) > 0.1, 0.5 * np.abs(w) ** -0.5, 0.1**0.5 / 0.1))
    np.testing.assert_allclose(value, np.sum(u * sign) * size, rtol=1e-4)
    np.testing.assert_allclose(grads.weight, u * slope * size + np.sum(u * sign) * sign / w.size, rtol=1e-4)


def test_indicators_by_hand_and_how_they_trade():
    x = jnp.array([-1.0, 0.25, 4.0])
    np.testing.assert_allclose(quantize.estimating_error(x, 2.0), (1 - 0.5) ** 2 + (1 - 2) ** 2, rtol=1e-6)
    np.testing.assert_allclose(quantize.gradient_stability(x, 2.0), np.var([0.5, 1, 0]), rtol=1e-6)
    weights = plugs.draw()["dense"]
    errors = [float(quantize.estimating_error(weights, o)) for o in (1.0, 2.0, 3.0)]
    spreads = [float(quantize.gradient_stability(weights, o)) for o in (1.0, 2.0, 3.0)]
    assert errors == sorted(errors, reverse=True)
    assert spreads == sorted(spreads)


def test_pack_keeps_one_bit_and_layers_of_a_stack_their_own_size():
    weight = plugs.draw()["stack"].at[1].multiply(3.0)
    given = Evidence({"stack": Layout((1,), (2,), (0,))})
    params, _ = quantize.reste(10).init({"stack": weight}, given)
    w = np.asarray(weight, np.float64)
    expected = np.where(w < 0, -1, 1) * np.abs(w).mean((1, 2), keepdims=True)
    np.testing.assert_allclose(sx.dense(params["stack"]), expected, rtol=1e-5)
    small = sx.pack(params["stack"])
    np.testing.assert_array_equal(sx.dense(small), sx.dense(params["stack"]))
    assert sx.nbytes(small) == 2 * 24 * 16 // 8 + 2 * 4


def test_under_a_mask_the_size_and_its_gradient_are_those_of_the_kept_entries():
    """As of the kept entries alone; removed ones, large or not, have no part in them and no gradient."""
    rng = np.random.default_rng(0)
    w, u, mask = rng.normal(size=(6, 5)), rng.normal(size=(6, 5)), rng.random((6, 5)) < 0.4
    w = np.where(mask, w, 9 * w).astype(np.float32)
    given = Evidence({"w": Layout((0,), (1,))})
    weight = sx.Masked(jnp.asarray(w), jnp.asarray(mask))
    params, info = plugs.run(quantize.reste(10), {"w": weight}, given)
    alone, about = plugs.run(quantize.reste(10), {"w": jnp.asarray(w[mask][:, None])}, given)
    kept = np.abs(w[mask]).mean()
    np.testing.assert_allclose(sx.dense(params["w"]), np.where(mask, np.where(w < 0, -kept, kept), 0), rtol=1e-6)
    slope = lambda leaf, u: jax.grad(lambda leaf: jnp.sum(u * sx.dense(leaf)), allow_int=True)(leaf)  # noqa: E731
    found = slope(params["w"], u).weight.weight
    np.testing.assert_allclose(found[mask], slope(alone["w"], u[mask][:, None]).weight[:, 0], rtol=1e-5)
    np.testing.assert_array_equal(found[~mask], 0)
    for name in ("estimating_error", "gradient_variance"):
        np.testing.assert_allclose(info["w"][name], about["w"][name], rtol=1e-5)
    np.testing.assert_array_equal(sx.dense(sx.pack(params["w"])), sx.dense(params["w"]))
    other = dataclasses.replace(params["w"], mask=jnp.asarray(~mask))  # a mask that moves takes the size along
    np.testing.assert_allclose(jnp.max(sx.dense(other)), np.abs(w[~mask]).mean(), rtol=1e-6)


def test_bad_arguments():
    with pytest.raises(ValueError, match="o_end must be in"):
        quantize.reste(10, 0.5)
    with pytest.raises(ValueError, match="steps must be an integer"):
        quantize.reste(0)
    given = plugs.evidence({"dense": plugs.draw()["dense"]})
    with pytest.raises(ValueError, match="dense holds no Sign"):
        quantize.reste(10).update(dict(given.originals), (), given)
