"""AccelAT: a learning rate that falls where validation accuracy stops rising."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import optax

from spartax import checks
from spartax.records import Params
from spartax.train.step import State


class Rate(NamedTuple):
    """What the controller knows.

    Attributes:
      value: the learning rate.
      quiet: epochs since it last fell, or since the beginning.
    """

    value: float
    quiet: int = 0


def accelat_step(
    history: Sequence[float],
    rate: Rate,
    *,
    window: int = 5,
    gain: float = 0.005,
    factor: float = 0.8,
    least: float = 1e-6,
) -> Rate:
    """The learning rate after one more epoch.

    It becomes `max(factor rate, least)` where the mean accuracy of the last `window` epochs exceeds that of the (up to)
    `window` before them by less than `gain`, more than `window` epochs after its last fall.

    Args:
      history: accuracy after every epoch so far, in [0, 1].
      rate: what this function gave after the epoch before; `Rate(1e-3)` at first.
      window: epochs of a mean.
      gain: rise of the accuracy between two means that is enough.
      factor: of the rate, in [0, 1].
      least: the rate never falls below.

    Raises:
      ValueError: values out of range.
    """
    checks.positive_int("window", window)
    checks.in_range("factor", factor, 0.0, 1.0)
    for name, value in {"gain": gain, "least": least}.items():
        checks.in_range(name, value, 0.0, float("inf"), open_high=True)
    quiet = rate.quiet + 1
    if len(history) <= window or quiet <= window:
        return Rate(rate.value, quiet)
    rise = np.mean(history[-window:]) - np.mean(history[-2 * window : -window])
    return Rate(max(factor * rate.value, least), 0) if rise < gain else Rate(rate.value, quiet)


def accelat(
    epoch: Callable[[State, int], State],
    score: Callable[[Params], float],
    state: State,
    *,
    epochs: int,
    control: Callable[[Sequence[float], Rate], Rate] = accelat_step,
    before: tuple[Sequence[float], Sequence[float]] = ((), ()),
) -> tuple[State, list[float], list[float]]:
    """Train for some epochs at learning rates that `accelat_step` gives: large for as long as accuracy rises.

    The optimizer must let its rate be set, `tx = optax.inject_hyperparams(optax.sgd)(learning_rate=1e-3)`; the rate it
    has in `state` is the first. New rates are new values: nothing is traced again. The score should be robust accuracy
    on held-out images, as in `train.validation`.

    What it gives back goes on in a later call, to the same bits as in one: `state, *before = train.accelat(...)`, then
    `train.accelat(epoch, score, state, epochs=4, before=before)`. To survive being killed call it for an epoch at a
    time, and save both each time: the state alone does not hold what the rate waits for.

    See Nikfam, Marchisio, Martina and Shafique, AccelAT: A Framework for Accelerating the Adversarial Training of Deep
    Neural Networks through Accuracy Gradient (S033).

    Args:
      epoch: `(state, number) -> state`, one epoch, such as a call of `train.fit`; numbers count those of `before` too.
      score: `variables -> accuracy` in [0, 1].
      state: from `train.init_state`.
      epochs: how many, those of `before` not counted.
      control: the next rate, by its arguments alone; another window is `functools.partial(accelat_step, window=3)`.
      before: accuracies and rates of the epochs that `state` has behind it.

    Returns:
      The last state, the accuracy after every epoch, and the rate of every epoch, those of `before` among them.

    Raises:
      ValueError: no epochs, an optimizer without a rate to set, accuracies outside [0, 1], other than one rate for each
        accuracy in `before`.
    """
    checks.positive_int("epochs", epochs)
    history, rates = map(list, before)
    if len(history) != len(rates):
        raise ValueError(f"before must hold a rate for each accuracy; got {len(rates)} for {len(history)}.")
    first = float(_rate_of(state))
    rate = Rate(rates[0] if rates else first)
    for done in range(len(history)):  # the rule remembers what this tells it again
        rate = control(history[: done + 1], rate)
    for number in range(len(history), len(history) + epochs):
        rates.append(rate.value)
        state = epoch(state, number)
        history.append(float(score(state.variables)))
        checks.in_range("score", history[-1], 0.0, 1.0)
        rate = control(history, rate)
        state = _with_rate(state, rate.value)
    return state, history, rates


def _rate_of(state: State) -> float:
    found = optax.tree_utils.tree_get(state.opt_state, "learning_rate")
    if found is None:
        raise ValueError("state must be of an optimizer made by optax.inject_hyperparams; it has no learning_rate.")
    return found


def _with_rate(state: State, value: float) -> State:
    new = jnp.full_like(_rate_of(state), value)
    return state._replace(opt_state=optax.tree_utils.tree_set(state.opt_state, learning_rate=new))
