"""Training at several widths: rates by hand, every width learns from one compiled step, and 2 bits gain by it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import spartax as sx
from spartax import data, models, quantize, train
from spartax.arrays import FakeQuantized, SwitchedStep
from spartax.train.alrs import eta

KEY = jax.random.key(0)
MODULE = models.MLP((24,))


def test_the_factors_of_the_widths_are_the_golden_ones():
    np.testing.assert_allclose([eta(bits) for bits in (8, 6, 5, 4, 3, 2)], [1, 0.1, 0.05, 0.01, 0.005, 0.001])
    np.testing.assert_allclose(eta(7), 0.5)


def test_rates_by_hand():
    """Sizes 0.2 and 0.1 leave 0.5 - 0.15; 3.0 counts as 1, which leaves the least; weights have an optimizer of
    their own, and so has what a normalization calls scale."""
    step = lambda size: SwitchedStep(jnp.full((1, size), 2.0), None)  # noqa: E731
    params = {
        "a": FakeQuantized(jnp.ones((2, 2)), step(1)),
        "b": FakeQuantized(jnp.ones((2, 2)), step(2)),
        "norm": {"scale": jnp.ones(2)},
    }
    tx = train.alrs(0.5, optax.sgd(1.0), direction=optax.identity())
    state, update = tx.init(params), jax.jit(tx.update)

    def gradients(a, b):
        put = lambda name, value: FakeQuantized(jnp.full((2, 2), 4.0), SwitchedStep(jnp.array([value]), None))  # noqa: E731
        return {"a": put("a", a), "b": put("b", b), "norm": {"scale": jnp.full(2, 5.0)}}

    for turn, (factor, (b, left)) in enumerate(
        zip((1, 0.1, 0.01, 0.001, 1), [([0.1, -0.05], 0.35)] * 2 + [([-3.0, 0.1], 0.005)] + [([0.1, 0.0], 0.35)] * 2)
    ):
        moved, state = update(gradients([0.2], b), state, params)
        np.testing.assert_allclose(moved["a"].quantizer.scale, [[-0.2 * left * factor]], rtol=1e-5, err_msg=str(turn))
        np.testing.assert_allclose(moved["b"].quantizer.scale, [-left * factor * np.array(b)], rtol=1e-5)
        np.testing.assert_array_equal(moved["b"].weight, np.full((2, 2), -4.0))
        np.testing.assert_array_equal(moved["norm"]["scale"], [-5.0, -5.0])


def test_a_schedule_counts_rounds_and_the_default_direction_is_adam():
    tx = train.alrs(lambda n: jnp.where(n < 1, 0.2, 0.02), optax.sgd(1.0), (8, 2))
    params = {"a": SwitchedStep(jnp.ones((1, 1)), None)}
    state, sizes = tx.init(params), []
    for _ in range(3):
        moved, state = tx.update({"a": SwitchedStep(jnp.full((1, 1), 1e-3), None)}, state, params)
        sizes.append(-float(moved["a"].scale[0, 0]))
    np.testing.assert_allclose(sizes, [0.2 - 1e-3, (0.2 - 1e-3) * 1e-3, 0.02 - 1e-3], rtol=1e-3)


@functools.cache
def images(split):
    found = data.load("digits", split)
    return jnp.asarray(found.x), jnp.asarray(found.y)


def run(step, variables, tx, count):
    state = train.init_state(variables, tx)
    return train.fit(step, state, [images("train")] * count, KEY, progress=False)


@functools.cache
def start():
    """A float network, the same in training, its function, a compiled step, and how often that was traced."""
    x, tx, traces = images("train")[0], optax.adam(0.03), []
    float_, _ = run(train.make_step(train.clean(), tx, MODULE.apply), jax.jit(MODULE.init)(KEY, x[:1]), tx, 60)
    apply = sx.compressed(lambda variables, x: traces.append(1) or MODULE.apply(variables, x))
    variables, _ = train.begin(quantize.double_rounding(), apply, float_.variables, x[:8], KEY)
    traces.clear()
    tx = train.alrs(1e-3, optax.adam(3e-3))
    return variables, apply, tx, train.make_step(train.clean(), tx, apply), traces


def accuracies(apply, variables):
    x, y = images("test")
    store, answer = sx.pack(variables), jax.jit(lambda w, bits: apply(quantize.switch(w, bits), x))
    return [float(jnp.mean(jnp.argmax(answer(store, jnp.int32(bits)), -1) == y)) for bits in (8, 6, 4, 2)]


def test_all_widths_learn_and_two_bits_gain_over_a_store_that_was_not_trained_for_them():
    """The same number of updates at 8 bits alone leaves 2 bits behind."""
    variables, apply, tx, step, traces = start()
    state, losses = run(train.switching(step), variables, tx, 10)
    assert len(traces) == 1
    assert int(state.step) == len(losses) == 10
    assert losses[-1] < 0.6 * losses[0]
    wide, _ = run(train.switching(step, [8]), variables, tx, 40)
    assert len(traces) == 1
    before, after, alone = (accuracies(apply, v) for v in (variables, state.variables, wide.variables))
    assert after[3] > max(before[3] + 0.1, alone[3] + 0.04)
    assert min(after[:3]) > 0.94


def test_each_update_continues_from_the_last_one():
    """Two batches through a joint step are eight updates by hand, at the widths in their order."""
    variables, _, tx, step, _ = start()
    joint, _ = run(train.switching(step), variables, tx, 2)
    state = train.init_state(variables, tx)
    for number in range(2):
        for turn, bits in enumerate((8, 6, 4, 2)):
            key = jax.random.fold_in(jax.random.fold_in(KEY, number), turn)
            state, _ = step(state.with_params(quantize.switch(state.variables, bits)), key, *images("train"))
    jax.tree.map(np.testing.assert_array_equal, joint.trainable, state.trainable)


def test_a_refresh_leaves_the_state_of_both_optimizers():
    """The steps and all else have an optimizer each, and neither has moments of what the other moves."""
    _, apply, tx, _, _ = start()
    transform, (x, y) = quantize.double_rounding([8, 2]), images("train")
    variables, method = train.begin(transform, apply, jax.jit(MODULE.init)(KEY, x[:1]), x[:8], KEY)
    refresh = train.make_refresh(transform, train.clean(), tx, apply)
    state = train.init_state(variables, tx, method=method)
    state = state._replace(opt_state=jax.tree.map(jnp.ones_like, state.opt_state))
    assert refresh.due(0)
    new = refresh.update(state, KEY, x, y)
    assert new.method.info["params/linear1/kernel"]["widths"] == [8, 2]
    jax.tree.map(np.testing.assert_array_equal, new.opt_state, state.opt_state)


def test_widths_drawn_for_every_weight():
    variables, _, tx, step, traces = start()
    paths = [f"params/{name}/kernel" for name in ("linear1", "linear2")]
    draw = quantize.hasb(dict.fromkeys(paths, 1.0), 5)
    run(train.switching(step), variables, tx, 1)
    before = len(traces)
    state, losses = run(train.switching(step, draw), variables, tx, 5)
    last = draw(jax.random.fold_in(KEY, 4), jnp.int32(4))
    for path, weight in sx.tree.pick(state.variables, paths).items():
        np.testing.assert_array_equal(weight.quantizer.bits, np.full((1, 1), int(last[path])))
    assert np.isfinite(losses).all()
    assert len(traces) == before


def without_steps(tx):
    params = {"kernel": jnp.ones(2)}
    return tx.update(params, tx.init(params), params)


def test_bad_arguments():
    for make, message in (
        (lambda: train.switching(None, ()), "number of widths"),
        (lambda: train.alrs(0.1, optax.sgd(1.0), ()), "number of widths"),
        (lambda: train.alrs(0.1, optax.sgd(1.0), (8, 9)), "widths must be one of"),
        (lambda: train.alrs(0.1, optax.sgd(1.0), least=2), "least must be in"),
        (lambda: without_steps(train.alrs(0.1, optax.sgd(1.0))), "params hold no step that is learnt"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
