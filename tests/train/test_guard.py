"""A step that is not finite changes nothing, and the run stops with the state before it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from spartax import train

KEY = jax.random.key(0)


def root(network, key, x, y):
    """Its gradient in w is infinite at w x = 0, its value is not."""
    return jnp.sqrt(network.variables["w"] * x[0, 0]), {}


TX = optax.adam(0.01)
STEPS = {
    "loss": train.make_step(train.clean(), TX, lambda params, x: x * params["w"]),
    "gradient": train.make_step(root, TX, lambda params, x: x),
}
X, Y = np.array([[1.0, 2.0]], np.float32), np.zeros(1, np.int32)


def start():
    return train.init_state({"w": jnp.float32(1)}, TX)


def flat(state):
    return [np.asarray(x).tobytes() for x in jax.tree.leaves(state)]


@pytest.mark.parametrize(("name", "bad"), [("loss", np.nan), ("gradient", 0.0)])
def test_the_error_holds_the_state_before_the_step_that_broke(name, bad):
    good, _ = train.fit(STEPS[name], start(), [(X, Y)] * 13, KEY, progress=False)
    batches = [(jnp.full_like(X, bad) if n in (13, 16) else X, Y) for n in range(25)]
    with pytest.raises(train.NotFiniteError, match="at step 14") as caught:
        train.fit(STEPS[name], start(), batches, KEY, progress=False)
    assert flat(caught.value.state) == flat(good)
    assert caught.value.losses.shape == (14,)
    assert ("gradient" in str(caught.value)) == (name == "gradient")
    again, losses = train.fit(STEPS[name], caught.value.state, [(X, Y)] * 2, KEY, progress=False)
    assert int(again.step) == 15  # it can be gone on with
    assert np.all(np.isfinite(losses))


def test_a_broken_state_is_never_saved(tmp_path):
    keep = train.checkpoints(tmp_path, every=4, config={})
    batches = [(jnp.full_like(X, np.nan) if n == 6 else X, Y) for n in range(9)]
    with pytest.raises(train.NotFiniteError):
        train.fit(STEPS["loss"], start(), batches, KEY, keep=keep, progress=False)
    batches[6] = X, Y
    steps = []

    def step(state, *args):
        steps.append(int(state.step))
        return STEPS["loss"](state, *args)

    state, losses = train.fit(step, start(), batches, KEY, keep=keep, progress=False)
    whole, all_losses = train.fit(STEPS["loss"], start(), batches, KEY, progress=False)
    assert steps == [4, 5, 6, 7, 8]
    assert flat(state) == flat(whole)
    np.testing.assert_array_equal(losses, all_losses)


def test_statistics_that_break_are_no_good_state():
    def loss(network, key, x, y):
        return jnp.sum(network.variables["params"]["w"]), {"batch_stats": {"scale": 1 / x[0, 0]}}

    step = train.make_step(loss, TX, lambda variables, x: x)
    variables = {"params": {"w": jnp.float32(1)}, "batch_stats": {"scale": jnp.float32(1)}, "seen": jnp.int32(0)}
    batches = [(np.full_like(X, value), Y) for value in (2.0, 4.0, 0.0)]
    with pytest.raises(train.NotFiniteError, match=r"a statistic stopped being finite .* at step 3") as caught:
        train.fit(step, train.init_state(variables, TX), batches, KEY, progress=False)
    assert float(caught.value.state.others["batch_stats"]["scale"]) == 0.25


def test_accumulated_batches_are_one_large_batch():
    rng = np.random.default_rng(0)
    x, y = rng.random((12, 4), np.float32), rng.integers(0, 3, 12).astype(np.int32)
    params = {"w": jnp.asarray(rng.normal(size=(4, 3)), jnp.float32)}

    def ended(tx, batches):
        step = train.make_step(train.clean(), tx, lambda p, x: x @ p["w"])
        return train.fit(step, train.init_state(params, tx), batches, KEY, progress=False)[0].variables["w"]

    large = ended(optax.sgd(0.5, 0.9), [(x, y)] * 2)
    small = ended(optax.MultiSteps(optax.sgd(0.5, 0.9), 3), [(x[i : i + 4], y[i : i + 4]) for i in (0, 4, 8)] * 2)
    np.testing.assert_allclose(small, large, rtol=1e-5, atol=1e-6)
    assert np.abs(np.asarray(large) - params["w"]).max() > 0.1


def product(network, key, x, y):
    """Its gradient in w is x."""
    return network.variables["w"] * x[0, 0], {}


@pytest.mark.parametrize("shape", [(), (2,)])
def test_a_state_of_the_optimizer_that_breaks_is_no_good_state(shape):
    """The square of a gradient of 1e25 is infinite; Adam would never move that weight again."""
    step = train.make_step(lambda n, key, x, y: (jnp.sum(product(n, key, x, y)[0]), {}), TX, lambda params, x: x)
    batches = [(np.full_like(X, value), Y) for value in (1.0, 1.0, 1e25, 1.0)]
    begin = lambda: train.init_state({"w": jnp.ones(shape)}, TX)  # noqa: E731
    good, _ = train.fit(step, begin(), batches[:2], KEY, progress=False)
    with pytest.raises(train.NotFiniteError, match=r"the optimizer .* stopped being finite .* at step 3") as caught:
        train.fit(step, begin(), batches, KEY, progress=False)
    assert flat(caught.value.state) == flat(good)


def test_an_optimizer_may_begin_with_an_infinite_best_value():
    """It stays infinite in the first step."""

    def update(updates, state, params=None):
        return updates, jnp.where(updates["w"] < 1, updates["w"], state)

    least = optax.GradientTransformation(lambda params: jnp.float32(jnp.inf), update)
    tx = optax.chain(least, optax.sgd(0.5))
    step = train.make_step(product, tx, lambda params, x: x)
    batches = [(np.full_like(X, value), Y) for value in (1.0, 0.5)]
    state, _ = train.fit(step, train.init_state({"w": jnp.float32(1)}, tx), batches, KEY, progress=False)
    assert (float(state.opt_state[0]), float(state.variables["w"])) == (0.5, 0.25)
