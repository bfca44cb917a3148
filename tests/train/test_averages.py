import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import spartax as sx
from spartax import prune, train

KEY = jax.random.key(0)
X, Y = np.eye(2, dtype=np.float32), np.zeros(2, np.int32)


def pull(network, key, x, y):
    """Its gradient is one, so that SGD with rate 1 lowers every weight by 1 in each step."""
    return jnp.sum(network.variables["w"]), {}


def weights_and_averages(average, count, tx=None):
    tx = tx or optax.chain(optax.sgd(1.0), average)
    step = train.make_step(pull, tx, lambda params, x: x)
    state = train.init_state({"w": jnp.array([10.0])}, tx)
    found = []
    for _ in range(count):
        state, _ = step(state, KEY, X, Y)
        found.append((float(state.variables["w"][0]), float(train.averaged(state)["w"][0])))
    return found


def test_ema_by_hand():
    assert weights_and_averages(train.ema(0.75), 3) == [(9, 9.75), (8, 9.3125), (7, 8.734375)]


def test_swa_by_hand():
    """Weights after updates 2, 4, 6 are 8, 6, 4."""
    averages = [a for _, a in weights_and_averages(train.swa(2, every=2), 6)]
    np.testing.assert_allclose(averages, [9, 8, 8, 7, 7, 6], rtol=1e-6)


def test_under_accumulation_only_updates_count():
    tx = optax.MultiSteps(optax.chain(optax.sgd(1.0), train.ema(0.5)), 2)
    assert weights_and_averages(None, 4, tx) == [(10, 10), (9, 9.5), (9, 9.5), (8, 8.75)]


def test_averages_of_grown_entries_begin_at_the_weight():
    """Entries that AC/DC brings back keep the value they had, unlike their moments."""
    apply = sx.compressed(lambda params, x: x @ params["w"])
    tx = optax.chain(optax.sgd(0.5, 0.9), train.ema(0.9))
    transform = prune.prune(prune.magnitude(), 0.5)
    w = jnp.asarray(np.arange(1, 9, dtype=np.float32).reshape(2, 4))
    masked, method = train.begin(transform, apply, {"w": w}, X, KEY)
    masked["w"] = sx.Masked(w, jnp.asarray(np.arange(8).reshape(2, 4) < 4))  # the small half is kept
    refresh = train.make_refresh(transform, train.clean(), tx, apply)
    state, _ = train.make_step(train.clean(), tx, apply)(train.init_state(masked, tx, method=method), KEY, X, Y)
    before, now = np.asarray(train.averaged(state)["w"].weight), np.asarray(state.variables["w"].weight)
    assert np.any(before != now)
    state = refresh.update(state, KEY, X, Y)
    grown = np.asarray(state.variables["w"].mask) & (np.arange(8).reshape(2, 4) >= 4)
    assert grown.sum() == 4
    now = np.asarray(state.variables["w"].weight)
    np.testing.assert_array_equal(train.averaged(state)["w"].weight, np.where(grown, now, before))


def test_bad_use_is_refused():
    with pytest.raises(ValueError, match=r"decay must be in \[0.0, 1.0\)"):
        train.ema(1.0)
    with pytest.raises(ValueError, match="every must be an integer"):
        train.swa(1, every=0)
    with pytest.raises(ValueError, match="params must be given"):
        train.ema().update({}, train.ema().init({}))
    with pytest.raises(ValueError, match=r"one train.ema or train.swa; it has 0"):
        train.averaged(train.init_state({"w": jnp.ones(1)}, optax.sgd(1.0)))


@pytest.mark.parametrize(("average", "share"), [(train.ema(0.99), lambda n: 0.01), (train.swa(), lambda n: 1 / n)])
def test_averages_of_low_precision_weights_are_float32(average, share):
    """Moves of a hundredth of the distance are below the spacing of bfloat16; only what is read is rounded."""
    tx = optax.chain(optax.sgd(1.0), average)
    step = train.make_step(pull, tx, lambda params, x: x)
    state, expected = train.init_state({"w": jnp.array([10.0], jnp.bfloat16)}, tx), 10.0
    for number in range(1, 42):
        state, _ = step(state, KEY, X, Y)
        expected += share(number) * (10 - number - expected)
    kept = state.opt_state[1].average["w"]
    assert kept.dtype == jnp.float32
    np.testing.assert_allclose(kept, [expected], rtol=1e-5)
    read = train.averaged(state)["w"]
    assert read.dtype == jnp.bfloat16
    np.testing.assert_array_equal(read, kept.astype(jnp.bfloat16))
