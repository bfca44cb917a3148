"""SR-STE: N:M masks that follow the weights, dense gradients, and the pull on what is removed."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import spartax as sx
from spartax import prune, train
from spartax.records import Evidence, Layout
from tests.oracles import golden
from tests.oracles import prune as oracle

GIVEN = Evidence({"w": Layout((0,), (1,))})


def row():
    """Golden row as a Dense kernel `[8, 1]`, 2:4 along its input axis."""
    return jnp.asarray(golden.inputs()[0][0, :8, None], jnp.float32)


def test_golden_gradient_and_mask():
    params, _ = prune.sr_ste(2, 4).init({"w": row()}, GIVEN)
    upstream = jnp.cos(jnp.arange(8.0))[:, None]
    gradient = jax.grad(lambda p: jnp.sum(sx.dense(p["w"]) * upstream))(params)
    np.testing.assert_allclose(gradient["w"].weight, upstream)  # straight through: removed entries too
    tx = train.pull_removed(2e-4)
    pulled, _ = tx.update(gradient, tx.init(params), params)
    np.testing.assert_allclose(pulled["w"].weight[:, 0], golden.NUMBERS["srste_grad"], rtol=1e-6)
    np.testing.assert_array_equal(sx.dense(params["w"])[:, 0] != 0, golden.NUMBERS["nm24_mag_row0"][:8])


def test_training_by_hand_the_mask_follows_the_weight():
    """Gradient descent on `0.5 |dense(w) - target|^2` in NumPy, the pull included once, whatever the loss does."""
    rng = np.random.default_rng(0)
    start, target = rng.normal(size=(8, 3)), rng.normal(size=(8, 3))
    params, state = prune.sr_ste(2, 4).init({"w": jnp.asarray(start, jnp.float32), "b": jnp.ones(2)}, GIVEN)
    tx = optax.chain(train.pull_removed(0.3), optax.sgd(0.2))

    @jax.jit
    def descend(params, opt_state):
        gradients = jax.grad(lambda p: sum(jnp.sum((sx.dense(p["w"]) - target) ** 2) / 4 for _ in range(2)))(params)
        updates, opt_state = tx.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    opt_state, w = tx.init(params), start
    for _ in range(12):
        params, opt_state = descend(params, opt_state)
        mask = oracle.n_of_m(np.abs(w), 2, 4, 0)
        w = w - 0.2 * (np.where(mask, w, 0) - target + 0.3 * np.where(mask, 0, w))
    np.testing.assert_allclose(params["w"].weight, w, rtol=1e-4, atol=1e-5)
    assert (oracle.n_of_m(np.abs(start), 2, 4, 0) != mask).any()
    np.testing.assert_array_equal(params["b"], np.ones(2))
    _, state, info = prune.sr_ste(2, 4).update(params, state, GIVEN)
    now = oracle.n_of_m(np.abs(w), 2, 4, 0)
    assert info["w"]["changed"] == (now != oracle.n_of_m(np.abs(start), 2, 4, 0)).sum() > 0
    finished = prune.finish(params)["w"]
    assert isinstance(finished, sx.Masked)
    np.testing.assert_array_equal(finished.mask, now)


def test_what_is_not_trained_is_not_pulled():
    params, _ = prune.sr_ste(2, 4).init({"w": row(), "v": jnp.ones(2)}, GIVEN)
    trainable, _ = sx.split(params, lambda path, x: path == "v")
    tx = train.pull_removed()
    pulled, _ = tx.update(trainable, tx.init(trainable), trainable)
    assert jax.tree.structure(pulled) == jax.tree.structure(trainable)


def test_bad_arguments():
    with pytest.raises(ValueError, match="n must be at most m = 4; got 5"):
        prune.sr_ste(5, 4)
    with pytest.raises(ValueError, match=r"w: sr_ste\(2, 4\) needs .* divisible by 4; got an input axis of 6"):
        prune.sr_ste(2, 4).init({"w": jnp.ones((6, 4))}, GIVEN)
    with pytest.raises(ValueError, match="got Masked"):
        prune.sr_ste(2, 4).init({"w": sx.Masked(row(), row() > 0)}, GIVEN)
    with pytest.raises(ValueError, match="w holds no TopOfGroups"):
        prune.sr_ste(2, 4).update({"w": row()}, {}, GIVEN)
    with pytest.raises(ValueError, match="rate must be in"):
        train.pull_removed(-1.0)
    with pytest.raises(ValueError, match="params must be given"):
        train.pull_removed().update({}, optax.EmptyState())
