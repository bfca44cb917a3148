import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.core import freeze

import spartax as sx
from spartax import train
from spartax.arrays import LowRank, Masked, Quantized

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X = RNG.random((8, 6)).astype(np.float32)
Y = RNG.integers(0, 3, 8).astype(np.int32)
W = jnp.asarray(RNG.normal(size=(6, 12)), jnp.float32)
PARAMS = {
    "masked": Masked(W, jnp.asarray(RNG.random((6, 12)) < 0.5)),
    "lowrank": LowRank(jnp.asarray(RNG.normal(size=(12, 2)), jnp.float32), W[:2]),
    "codes": Quantized(jnp.asarray(RNG.integers(-9, 9, (12, 3)), jnp.int8), jnp.full((1, 3), 0.03)),
}
SEEN = {}


def mlp(params, x):
    SEEN.update({name: np.dtype(leaf.dtype) for name, leaf in params.items()}, x=np.dtype(x.dtype))
    for name in ("masked", "lowrank"):
        x = jax.nn.relu(x @ params[name])
    return x @ params["codes"]


def test_passes_are_bfloat16_and_weights_and_gradients_float32():
    apply = sx.compressed(mlp)
    mixed = train.mixed_precision(apply)
    tx = optax.sgd(0.1)
    exact, _ = train.make_step(train.clean(), tx, apply)(train.init_state(PARAMS, tx), KEY, X, Y)
    state, loss = train.make_step(train.clean(), tx, mixed)(train.init_state(PARAMS, tx), KEY, X, Y)
    assert set(SEEN.values()) == {np.dtype(jnp.bfloat16)}
    assert loss.dtype == jnp.float32
    assert {x.dtype for x in jax.tree.leaves(state.trainable)} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(state.variables["codes"].codes, PARAMS["codes"].codes)
    old = train.init_state(PARAMS, tx).trainable
    for new, near, was in zip(*(jax.tree.leaves(t) for t in (state.trainable, exact.trainable, old)), strict=True):
        moved, wanted = np.asarray(new - was), np.asarray(near - was)
        assert 0 < np.linalg.norm(moved - wanted) < 0.03 * np.linalg.norm(wanted)  # rounded, and near
    logits = jax.jit(mixed)(PARAMS, X)
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, jax.jit(apply)(PARAMS, X), rtol=0.03, atol=0.03)


def test_small_updates_are_not_lost():
    """In bfloat16, 1 + 0.001 is 1; the master weight adds up a hundred such updates."""
    tx = optax.sgd(0.001)
    step = train.make_step(
        lambda n, key, x, y: (-jnp.sum(n.logits(x)), {}), tx, train.mixed_precision(lambda p, x: x * p)
    )
    state = train.init_state(jnp.float32(1), tx)
    for _ in range(100):
        state, _ = step(state, KEY, np.ones((1, 1), np.float32), Y[:1])
    assert float(state.variables) == pytest.approx(1.1, rel=1e-5)


def test_collections_beside_params_stay_float32():
    def apply(variables, x):
        assert variables["params"].dtype == x.dtype == jnp.float16
        assert variables["batch_stats"].dtype == jnp.float32
        return x * variables["params"], {"batch_stats": variables["batch_stats"] + 1e-4}

    mixed = train.mixed_precision(apply, jnp.float16)
    out, updates = mixed({"params": jnp.float32(2), "batch_stats": jnp.float32(1)}, jnp.ones((1, 1)))
    assert out.dtype == jnp.float32
    assert float(updates["batch_stats"]) == pytest.approx(1.0001, rel=1e-6)
    assert (
        float(mixed(freeze({"params": jnp.float32(2), "batch_stats": jnp.float32(1)}), jnp.ones((1, 1)))[0][0, 0]) == 2
    )


def test_the_dtype_must_be_floating():
    with pytest.raises(ValueError, match="dtype must be floating"):
        train.mixed_precision(mlp, jnp.int8)
