"""The adversary of ConAdv is one update behind, and waits for nothing that the step computes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.core import freeze

from spartax import attacks, train

ATTACK, KEY, TX = attacks.fgsm(0.1), jax.random.key(0), optax.sgd(0.5)
RNG = np.random.default_rng(0)
PARAMS = {"w": jnp.asarray(RNG.normal(size=(4, 3)), jnp.float32)}
BATCHES = [(RNG.random((6, 4), np.float32), RNG.integers(0, 3, 6).astype(np.int32)) for _ in range(5)]


def apply(variables, x):
    """The square makes the direction of the attack depend on the weights."""
    return (x @ variables["params"]["w"]) ** 2


STEP = train.make_step(train.conadv(ATTACK, share=0.75), TX, apply)


def start():
    return train.with_adversary({"params": PARAMS}, ATTACK, apply, KEY, *BATCHES[0])


def entropy(params, x, y):
    return optax.softmax_cross_entropy_with_integer_labels(apply({"params": params}, x), y).mean()


@jax.jit
def by_hand(params, attacker, x, y):
    """Weights after one step whose images are attacked with the weights of `attacker`."""
    moved = ATTACK(KEY, lambda x: apply({"params": attacker}, x), x, y)
    gradient = jax.grad(lambda p: 0.25 * entropy(p, x, y) + 0.75 * entropy(p, moved, y))(params)
    return jax.tree.map(lambda w, g: w - 0.5 * g, params, gradient)


@pytest.fixture(scope="module")
def oracles():
    stale = fresh = before = PARAMS
    for x, y in BATCHES:
        stale, before = by_hand(stale, before, x, y), stale
        fresh = by_hand(fresh, fresh, x, y)
    return stale["w"], fresh["w"]


def test_the_weights_are_those_of_an_adversary_one_update_behind(oracles):
    state, losses = train.fit(
        STEP, train.init_state(start(), TX), train.look_ahead(BATCHES), KEY, total=5, progress=False
    )
    stale, fresh = oracles
    assert losses.shape == (5,)
    np.testing.assert_allclose(state.trainable["w"], stale, rtol=1e-4, atol=1e-5)
    assert np.abs(stale - fresh).max() > 1e-3


def test_neither_half_of_a_step_needs_the_other():
    """The loss does not depend on the coming batch, nor the coming images on the batch of now."""
    variables, loss = start(), train.conadv(ATTACK)
    forward = lambda x: (apply(variables, x), {})  # noqa: E731
    network = train.Network(lambda x: apply(variables, x), forward, variables)
    (x, y), (other, others) = next(train.look_ahead(BATCHES)), next(train.look_ahead(BATCHES[2:]))
    run = jax.jit(lambda x, y: loss(network, KEY, x, y))
    value, updates = run(x, y)
    same_now = run(np.stack([x[:, 0], other[:, 1]], 1), np.stack([y[:, 0], others[:, 1]], 1))
    same_next = run(np.stack([other[:, 0], x[:, 1]], 1), np.stack([others[:, 0], y[:, 1]], 1))
    assert same_now[0] == value != same_next[0]
    np.testing.assert_array_equal(same_next[1]["adversary"]["x"], updates["adversary"]["x"])
    assert np.abs(np.asarray(same_now[1]["adversary"]["x"] - updates["adversary"]["x"])).max() > 0


def test_every_batch_comes_with_the_next():
    pairs = list(train.look_ahead([(np.full((2, 1), n), np.full(2, n), "more") for n in range(3)]))
    assert [(x[0, :, 0].tolist(), y[0].tolist()) for x, y in pairs] == [
        ([a, b],) * 2 for a, b in ((0, 1), (1, 2), (2, 2))
    ]
    assert list(train.look_ahead([])) == []


def test_a_short_last_batch_is_named_after_the_pairs_before_it():
    pairs = train.look_ahead([*BATCHES[:2], (BATCHES[2][0][:4], BATCHES[2][1][:4])])
    assert next(pairs)[0].shape == (6, 2, 4)
    with pytest.raises(ValueError, match=r"batches must be of one size.*drop_last=True.*got 4 examples after 6"):
        next(pairs)


def test_bad_use_is_named():
    with pytest.raises(ValueError, match="share must be"):
        train.conadv(ATTACK, share=1.5)
    with pytest.raises(ValueError, match="variables must be collections"):
        train.with_adversary(PARAMS, ATTACK, apply, KEY, *BATCHES[0])
    frozen = train.with_adversary(freeze({"params": PARAMS}), ATTACK, apply, KEY, *BATCHES[0])
    np.testing.assert_array_equal(frozen["adversary"]["x"], start()["adversary"]["x"])
    network = train.Network(None, None, {"params": PARAMS})
    with pytest.raises(ValueError, match=r"train\.with_adversary"):
        train.conadv(ATTACK)(network, KEY, *BATCHES[0])
    with pytest.raises(ValueError, match=r"train.look_ahead, labels \[B, 2\]; got \(6,\)"):
        train.conadv(ATTACK)(network._replace(variables=start()), KEY, *BATCHES[0])
