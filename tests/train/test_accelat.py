"""AccelAT: scripted accuracies and the epochs at which the rate falls; the rate reaches the optimizer."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from spartax import train
from spartax.train.accelat import Rate, accelat_step


def falls(accuracies, **options):
    """The epochs (counted from 1) after which the rate fell, and the last rate."""
    rates = [Rate(1e-3)]
    for number in range(1, len(accuracies) + 1):
        rates.append(accelat_step(accuracies[:number], rates[-1], **options))
    values = [rate.value for rate in rates]
    return [n for n, (a, b) in enumerate(itertools.pairwise(values), 1) if b < a], values[-1]


def test_on_a_plateau_it_falls_every_sixth_epoch():
    found, last = falls([0.4] * 25)
    assert found == [6, 12, 18, 24]
    assert last == pytest.approx(1e-3 * 0.8**4)


def test_rising_accuracy_keeps_it():
    assert falls(list(np.arange(40) * 0.002)) == ([], 1e-3)


def test_a_slow_rise_is_a_plateau():
    """While the mean before holds fewer than five epochs the two are closer: 3, 3.5, 4, 4.5 and 5 epochs apart."""
    assert falls(list(np.arange(11) * 0.0016))[0] == [6]
    assert falls(list(np.arange(11) * 0.0017))[0] == []


def test_a_plateau_after_a_rise():
    """Means of epochs n-4..n and n-9..n-5: the rise of 0.1 ends at epoch 10, its last trace is gone at 19."""
    accuracies = [min(n, 10) * 0.1 for n in range(1, 26)]
    rise = lambda n: np.mean(accuracies[n - 5 : n]) - np.mean(accuracies[max(n - 10, 0) : n - 5])  # noqa: E731
    first = next(n for n in range(6, 26) if rise(n) < 0.005)
    assert first == 19
    assert falls(accuracies)[0] == [19, 25]


def test_it_does_not_fall_below_the_least():
    found, last = falls([0.1] * 60, least=5e-4)
    assert last == 5e-4
    assert found == [6, 12, 18, 24]


def problem():
    """An epoch of one step, a state, and the traces: gradient 1 everywhere."""
    traces = []

    def apply(params, x):
        traces.append(1)
        return x * params["w"]

    tx = optax.inject_hyperparams(optax.sgd)(learning_rate=0.5)
    loss = lambda network, key, x, y: (jnp.sum(network.logits(x)), {})  # noqa: E731
    step = train.make_step(loss, tx, apply)
    state = train.init_state({"w": jnp.zeros(())}, tx)
    key, x, y = jax.random.key(0), jnp.ones((1, 1)), jnp.zeros(1, jnp.int32)
    return lambda state, number: step(state, key, x, y)[0], state, traces


def test_the_rate_reaches_the_optimizer():
    """The weight moves by the sum of the rates; one trace serves all of them."""
    run, state, traces = problem()
    control = functools.partial(accelat_step, window=2, factor=0.5)
    state, history, rates = train.accelat(run, lambda v: 0.4, state, epochs=8, control=control)
    assert history == [0.4] * 8
    assert rates == [0.5] * 3 + [0.25] * 3 + [0.125] * 2
    np.testing.assert_allclose(state.variables["w"], -sum(rates))
    assert len(traces) == 1


@pytest.mark.parametrize("parts", [(4, 4), (1,) * 8, (7, 1)])
def test_parts_of_a_run_are_one_run(parts):
    """What the rate waits for is in what is given back; epochs are counted on."""
    given = {"control": functools.partial(accelat_step, window=2, factor=0.5)}
    score = lambda variables: 0.4 + 0.001 * abs(float(variables["w"]))  # noqa: E731
    run, state, _ = problem()
    whole, *told = train.accelat(run, score, state, epochs=8, **given)
    assert len(set(told[1])) == 3
    run, state, _ = problem()
    numbers, before = [], ((), ())

    def epoch(state, number):
        numbers.append(number)
        return run(state, number)

    for epochs in parts:
        state, *before = train.accelat(epoch, score, state, epochs=epochs, before=before, **given)
    assert before == told
    assert numbers == list(range(8))
    np.testing.assert_array_equal(state.variables["w"], whole.variables["w"])
    with pytest.raises(ValueError, match=r"before must hold a rate for each accuracy; got 1 for 2\."):
        train.accelat(run, score, state, epochs=1, before=([0.1, 0.2], [0.5]))


def test_bad_arguments():
    run, tx = (lambda state, number: state), optax.inject_hyperparams(optax.sgd)(learning_rate=0.5)
    state = train.init_state({"w": jnp.zeros(())}, tx)
    fixed = train.init_state({"w": jnp.zeros(())}, optax.sgd(0.5))
    for start, score, epochs, match in (
        (fixed, 0.5, 1, r"made by optax.inject_hyperparams"),
        (state, 1.5, 1, "score must be in"),
        (state, 0.5, 0, "epochs must be an integer"),
    ):
        with pytest.raises(ValueError, match=match):
            train.accelat(run, lambda v, score=score: score, start, epochs=epochs)
    for options, match in (
        ({"window": 0}, "window must be an integer"),
        ({"factor": 1.5}, "factor must be in"),
        ({"gain": -1.0}, "gain must be in"),
    ):
        with pytest.raises(ValueError, match=match):
            accelat_step([0.5], Rate(1e-3), **options)
