import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.core import freeze

from spartax import attacks, program, train
from spartax.arrays import LowRank, Masked, Quantized, Sum

KEY = jax.random.key(0)


def linear(params, x):
    return x @ params["kernel"] + params["bias"]


def problem(seed=0, inputs=4, classes=3, batch=8):
    random = np.random.default_rng(seed)
    params = {"kernel": random.standard_normal((inputs, classes)), "bias": random.standard_normal(classes)}
    x = random.random((batch, inputs)).astype(np.float32)
    return jax.tree.map(jnp.float32, params), x, random.integers(0, classes, batch).astype(np.int32)


def softmax_gradients(params, x, y):
    """Gradients of the mean cross-entropy of a linear network, by hand in NumPy."""
    kernel, bias = (np.asarray(params[name], np.float64) for name in ("kernel", "bias"))
    logits = x @ kernel + bias
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    value = -np.mean(np.log(p[np.arange(len(y)), y]))
    error = (p - np.eye(kernel.shape[1])[y]) / len(y)
    return value, {"kernel": x.T @ error, "bias": error.sum(0)}, error @ kernel.T


def test_one_step_of_sgd_is_the_gradient_by_hand():
    params, x, y = problem()
    tx = optax.sgd(0.5)
    step = train.make_step(train.clean(), tx, linear)
    state, value = step(train.init_state(params, tx), KEY, x, y)
    expected, gradient, _ = softmax_gradients(params, x, y)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    for name in params:
        np.testing.assert_allclose(state.variables[name], params[name] - 0.5 * gradient[name], rtol=1e-5, atol=1e-6)
    assert int(state.step) == 1


def test_pgd_at_trains_on_the_worst_images_of_a_linear_network():
    """One sign step of the length eps is what PGD finds there, so value and gradient are known."""
    params, x, y = problem()
    tx, eps = optax.sgd(1.0), 0.05
    x = np.clip(x, eps, 1 - eps)
    attack = attacks.pgd(eps, steps=1, step_size=eps, random_start=False)
    step = train.make_step(train.pgd_at(attack), tx, linear)
    state, value = step(train.init_state(params, tx), KEY, x, y)
    attacked = x + eps * np.sign(softmax_gradients(params, x, y)[2])
    expected, gradient, _ = softmax_gradients(params, attacked, y)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert value > softmax_gradients(params, x, y)[0]
    np.testing.assert_allclose(state.variables["kernel"], params["kernel"] - gradient["kernel"], rtol=1e-4, atol=1e-6)


def leaves():
    params = problem()[0]
    mask = jnp.asarray(np.random.default_rng(1).random((4, 3)) < 0.5)
    kernel = params["kernel"]
    return {
        "masked": Masked(kernel, mask),
        "low rank": LowRank(kernel[:, :2], kernel[:2]),
        "quantized": Quantized(jnp.round(kernel * 40).astype(jnp.int8), jnp.full((1, 3), 0.025)),
    }


@pytest.mark.parametrize("name", list(leaves()))
def test_compressed_leaves_are_trained_and_stay_what_they_are(name):
    params, x, y = problem()
    params = {"kernel": leaves()[name], "bias": params["bias"]}
    tx = optax.adam(1e-2)
    step = train.make_step(train.clean(), tx, program.compressed(linear))
    state = train.init_state(params, tx)
    values = []
    for _ in range(60):
        state, value = step(state, KEY, x, y)
        values.append(float(value))
    assert values[-1] < 0.9 * values[0]
    trained = state.variables["kernel"]
    assert jax.tree.structure(trained) == jax.tree.structure(params["kernel"])
    if name == "masked":
        moved = np.asarray(trained.weight != params["kernel"].weight)
        np.testing.assert_array_equal(moved, trained.mask)  # weights under the mask have no gradient
    if name == "quantized":
        np.testing.assert_array_equal(trained.codes, params["kernel"].codes)


def test_the_given_params_stay_usable_and_nothing_retraces():
    params, x, y = problem()
    tx = optax.sgd(0.1)
    traced = chex.assert_max_traces(linear, n=1)
    chex.clear_trace_counter()
    step = train.make_step(train.clean(), tx, lambda p, x: traced(p, x))
    state = train.init_state(params, tx)
    for number in range(3):
        state, _ = step(state, jax.random.fold_in(KEY, number), x, y)
    np.testing.assert_array_equal(params["bias"], problem()[0]["bias"])  # not donated


def test_collections_beside_params_are_updated_and_not_trained():
    params, x, y = problem()
    variables = {"params": params, "batch_stats": {"mean": jnp.zeros(4)}}

    def apply(v, x):
        return linear(v["params"], x - v["batch_stats"]["mean"])

    def train_apply(v, x):
        mean = 0.9 * v["batch_stats"]["mean"] + 0.1 * jnp.mean(x, axis=0)
        return linear(v["params"], x - jnp.mean(x, axis=0)), {"batch_stats": {"mean": mean}}

    tx = optax.sgd(0.1)
    step = train.make_step(train.clean(), tx, apply, train_apply)
    state = train.init_state(variables, tx)
    assert jax.tree.structure(state.trainable) == jax.tree.structure(params)
    state, value = step(state, KEY, x, y)
    np.testing.assert_allclose(state.variables["batch_stats"]["mean"], 0.1 * x.mean(0), rtol=1e-5)
    np.testing.assert_allclose(value, softmax_gradients(params, x - x.mean(0), y)[0], rtol=1e-5)
    np.testing.assert_array_equal(variables["batch_stats"]["mean"], np.zeros(4))


def test_fit_counts_steps_keeps_losses_and_continues_with_the_same_draws():
    params, x, y = problem()
    tx = optax.sgd(0.1)

    def noisy(network, key, x, y):
        return train.clean()(network, key, x + 0.1 * jax.random.normal(key, x.shape), y)

    step = train.make_step(noisy, tx, linear)
    run = functools.partial(train.fit, step, key=KEY, progress=False)
    state, losses = run(train.init_state(params, tx), [(x, y)] * 25)
    assert losses.shape == (25,)
    assert int(state.step) == 25
    half, first = run(train.init_state(params, tx), [(x, y)] * 13)
    again, second = run(half, [(x, y)] * 12)
    np.testing.assert_array_equal(np.concatenate([first, second]), losses)
    np.testing.assert_array_equal(again.variables["kernel"], state.variables["kernel"])


@pytest.mark.parametrize(("bad", "expected"), [(3, 4), (20, 21), (23, 24)])
def test_fit_stops_at_the_first_loss_that_is_not_a_number(bad, expected):
    params, x, y = problem()
    tx = optax.sgd(0.1)
    step = train.make_step(train.clean(), tx, linear)
    batches = [(jnp.full_like(x, np.nan) if n == bad else x, y) for n in range(24)]
    with pytest.raises(FloatingPointError, match=f"the loss became nan at step {expected}; lower the learning rate"):
        train.fit(step, train.init_state(params, tx), batches, KEY, progress=False)


def test_a_refresh_that_fails_leaves_the_state_in_the_error():
    params, x, y = problem()
    tx = optax.sgd(0.1)
    step = train.make_step(train.clean(), tx, linear)
    good, losses = train.fit(step, train.init_state(params, tx), [(x, y)] * 2, KEY, progress=False)
    refresh = train.Refresh(lambda number: number == 2, lambda state, *given: {}["no evidence"])
    with pytest.raises(KeyError) as caught:
        train.fit(step, train.init_state(params, tx), [(x, y)] * 4, KEY, refresh=refresh, progress=False)
    np.testing.assert_array_equal(caught.value.state.variables["kernel"], good.variables["kernel"])
    np.testing.assert_array_equal(caught.value.losses, losses)


def test_fit_needs_a_batch():
    params, *_ = problem()
    tx = optax.sgd(0.1)
    with pytest.raises(ValueError, match="at least one batch"):
        train.fit(train.make_step(train.clean(), tx, linear), train.init_state(params, tx), [], KEY, progress=False)


def test_fit_shows_throughput(capsys):
    params, x, y = problem()
    tx = optax.sgd(0.1)
    step = train.make_step(train.clean(), tx, linear)
    train.fit(step, train.init_state(params, tx), [(x, y)] * 3, KEY, total=3, name="warm up")
    out = capsys.readouterr().out
    assert "warm up" in out
    assert "3/3" in out
    assert "images/s" in out


def test_factors_on_a_frozen_weight_are_trained_and_the_weight_keeps_every_bit():
    """LoRA: `Sum((W, LowRank))` with a right factor of zeros starts as W; one step of SGD is the gradient by hand."""
    params, x, y = problem()
    left = np.float32(np.random.default_rng(3).standard_normal((4, 2)))
    adapted = params | {"kernel": Sum((params["kernel"], LowRank(jnp.asarray(left), jnp.zeros((2, 3)))))}
    tx = optax.sgd(0.5)
    state = train.init_state(adapted, tx, rule=lambda path, w: path in ("kernel/terms/1/left", "kernel/terms/1/right"))
    step = train.make_step(train.clean(), tx, program.compressed(linear))
    state, value = step(state, KEY, x, y)
    expected, gradient, _ = softmax_gradients(params, x, y)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    low = state.variables["kernel"].terms[1]
    np.testing.assert_array_equal(low.left, left)  # its gradient is zero while the right factor is
    np.testing.assert_allclose(low.right, -0.5 * left.T @ gradient["kernel"], rtol=1e-5, atol=1e-6)
    state, _ = step(state, KEY, x, y)
    kernel = state.variables["kernel"]
    assert not np.allclose(kernel.terms[1].left, left, atol=1e-3)
    np.testing.assert_array_equal(kernel.terms[0], params["kernel"])
    np.testing.assert_array_equal(state.variables["bias"], params["bias"])


def normed(params, x):
    return linear(params["params"], x - params["batch_stats"]["mean"])


def normed_in_training(variables, x):
    mean = 0.9 * variables["batch_stats"]["mean"] + 0.1 * jnp.mean(x, axis=0)
    return linear(variables["params"], x - jnp.mean(x, axis=0)), {"batch_stats": {"mean": mean}}


def test_frozen_collections_are_collections():
    params, x, y = problem()
    variables, tx = {"params": params, "batch_stats": {"mean": jnp.zeros(4)}}, optax.adamw(0.1)
    frozen_too = lambda v, x: (normed_in_training(v, x)[0], freeze(normed_in_training(v, x)[1]))  # noqa: E731
    steps = [train.make_step(train.clean(), tx, normed, forward) for forward in (normed_in_training, frozen_too)]
    plain, _ = train.fit(steps[0], train.init_state(variables, tx), [(x, y)] * 3, KEY, progress=False)
    given = freeze(variables), {name: freeze(value) for name, value in variables.items()}
    for step, frozen in itertools.product(steps, given):
        state, _ = train.fit(step, train.init_state(frozen, tx), [(x, y)] * 3, KEY, progress=False)
        found = state.variables
        np.testing.assert_allclose(found["batch_stats"]["mean"], (1 - 0.9**3) * x.mean(0), rtol=1e-5)
        jax.tree.map(np.testing.assert_array_equal, dict(found["params"]), dict(plain.variables["params"]))


def test_arrays_of_the_optimizer_stay_usable():
    """Its key goes into the state, whose memory a step reuses."""
    params, x, y = problem()
    tx = optax.chain(optax.add_noise(0.1, 0.5, jax.random.key(3)), optax.sgd(0.1))
    step = train.make_step(train.clean(), tx, linear)
    first, second = (step(train.init_state(params, tx), KEY, x, y)[0].variables["kernel"] for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_steps_of_a_loss_that_logs_can_be_scanned():
    params, x, y = problem()
    tx, keys = optax.sgd(0.1), jax.random.split(KEY, 3)
    step = train.make_step(train.aaer(0.05), tx, linear)

    def body(state, key):
        state, loss = step(state, key, x, y)
        return state._replace(log=None), (loss, state.log["abnormal"])

    scanned, (losses, abnormal) = jax.lax.scan(body, train.init_state(params, tx), keys)
    state, each = train.init_state(params, tx), []
    for key in keys:
        state, loss = step(state, key, x, y)
        each.append((loss, state.log["abnormal"]))
    np.testing.assert_allclose(losses, [loss for loss, _ in each], rtol=1e-5)
    np.testing.assert_array_equal(abnormal, [part for _, part in each])
    np.testing.assert_allclose(scanned.variables["kernel"], state.variables["kernel"], rtol=1e-5)


def convolved(variables, x):
    window = {"window_strides": (1, 1), "padding": "SAME", "dimension_numbers": ("NHWC", "HWIO", "NHWC")}
    return jnp.mean(jax.lax.conv_general_dilated(x, variables["kernel"], **window), axis=(1, 2))


def in_evaluation(network, key, x, y):
    return jnp.mean(network.logits(x)), {}


def in_training(network, key, x, y):
    return jnp.mean(network.forward(x)[0]), {}


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="elsewhere gradients are those of JAX")
@pytest.mark.parametrize(
    ("loss", "apply", "train_apply"),
    [
        (in_evaluation, convolved, None),
        (in_training, convolved, None),
        (in_training, lambda variables, x: pytest.fail("not in evaluation"), lambda v, x: (convolved(v, x), {})),
    ],
)
def test_convolutions_of_both_networks_have_the_gradients_that_are_fast_on_cpu(loss, apply, train_apply):
    """The kernel gradient of `program.fast_gradients` is a loop over a few examples at a time; that of JAX is none."""
    step = train.make_step(loss, optax.sgd(0.1), apply, train_apply)
    state = train.init_state({"kernel": jnp.ones((3, 3, 2, 4))}, optax.sgd(0.1))
    program_of = str(jax.make_jaxpr(step)(state, KEY, jnp.ones((32, 5, 5, 2)), jnp.zeros(32, jnp.int32)))
    assert "conv_general_dilated" in program_of
    assert "scan[" in program_of
