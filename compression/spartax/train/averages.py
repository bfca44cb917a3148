"""Averages of the weights along training, kept by the optimizer."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from spartax import checks
from spartax.records import Array, Params
from spartax.train.step import State


class Average(NamedTuple):
    """State of `ema` and `swa`.

    Attributes:
      count: updates seen, int32.
      average: in the structure of the trained weights; float32 or wider, because small moves are lost in bfloat16.
    """

    count: Array
    average: Params


def ema(decay: float = 0.999) -> optax.GradientTransformation:
    """Exponential moving average of the weights: `a <- decay a + (1 - decay) w` after every update, `a = w` at first.

    Comes last: `tx = optax.chain(optax.sgd(0.1, 0.9), train.ema(0.999))`; updates pass unchanged; `train.averaged`
    reads it. See Polyak and Juditsky, "Acceleration of stochastic approximation by averaging" (1992); in adversarial
    training, Gowal et al., arXiv 2010.03593.

    Args:
      decay: in [0, 1).

    Raises:
      ValueError: decay out of range; at use, an optimizer called without params.
    """
    checks.in_range("decay", decay, 0.0, 1.0, open_high=True)
    return _averaging(lambda count: 1.0 - decay)


def swa(start: int = 1, every: int = 1) -> optax.GradientTransformation:
    """Stochastic weight averaging: the plain mean of the weights after updates `start, start + every, ...`.

    Before `start` the average is the weights themselves. Comes last in the chain, as `ema`; with a network that has
    batch normalization, `train.reestimate_batch_stats` belongs to it. See Izmailov et al., Averaging Weights Leads to
    Wider Optima and Better Generalization, arXiv 1803.05407.

    Raises:
      ValueError: `start` or `every` is no positive integer; at use, an optimizer called without params.
    """
    checks.positive_int("start", start)
    checks.positive_int("every", every)

    def share(count: Array) -> Array:
        turns, rest = jnp.divmod(jnp.maximum(count - start, 0), every)
        return jnp.where(rest == 0, 1.0 / (turns + 1), 0.0)

    return _averaging(share)


def averaged(state: State) -> Params:
    """The variables of a state with averaged weights, in the dtypes of the weights; all else is as it is now.

    Masks, codes and batch statistics are not averaged.

    Raises:
      ValueError: the optimizer keeps no average, or several.
    """
    found = [x for x in jax.tree.leaves(state.opt_state, is_leaf=_is_average) if _is_average(x)]
    if len(found) != 1:
        raise ValueError(f"state must come from an optimizer with one train.ema or train.swa; it has {len(found)}.")
    average = jax.tree.map(lambda a, w: a.astype(w.dtype), found[0].average, state.trainable)
    return state._replace(trainable=average).variables


def restart_averages(opt_state: Any, grown: Params, trainable: Params) -> Any:
    """Averages begin anew at the weights of now where `grown` is True."""

    def restart(node: Any) -> Any:
        if not _is_average(node):
            return node
        mixed = jax.tree.map(_anew, node.average, grown, trainable, is_leaf=is_left_out)
        return node._replace(average=mixed)

    return jax.tree.map(restart, opt_state, is_leaf=_is_average)


def is_left_out(x: Any) -> bool:
    """Whether this stands in the state of an optimizer for params that it does not move."""
    return isinstance(x, optax.MaskedNode)


def _anew(average: Any, grown: Any, trainable: Any) -> Any:
    return average if is_left_out(average) else jnp.where(grown, trainable, average)


def _averaging(share: Callable[[Array], Array | float]) -> optax.GradientTransformation:
    """`a <- a + share(count) (w - a)` after update number `count`, counted from 1."""

    def init(params: Params) -> Average:
        return Average(jnp.zeros((), jnp.int32), jax.tree.map(_wide, params))

    def update(updates: Params, state: Any, params: Params | None = None) -> tuple[Params, Average]:
        if params is None:
            raise ValueError("params must be given to the update of an average of weights; got None.")
        count = state.count + 1
        part = share(count)
        new = optax.apply_updates(params, updates)
        mixed = jax.tree.map(lambda a, w: (a + part * (w - a)).astype(a.dtype), state.average, new)
        return updates, Average(count, mixed)

    return optax.GradientTransformation(init, update)


def _wide(x: Array) -> Array:
    """A copy, because a step reuses the memory of the weights."""
    return jnp.array(x, jnp.promote_types(x.dtype, jnp.float32))


def _is_average(x: Any) -> bool:
    return isinstance(x, Average)
