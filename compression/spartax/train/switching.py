"""Training a network that is read at several widths: one step after another at each of them."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from spartax import checks
from spartax.program.switch import switch
from spartax.records import Array, Path
from spartax.train.step import State, Step

Bits = int | Array | Mapping[Path, int | Array]  # what `quantize.switch` takes
Draw = Callable[[Array, Array], Bits]  # (key, step) -> bits


def switching(step: Step, widths: Sequence[Bits] | Draw = (8, 6, 4, 2)) -> Step:
    """A step that is taken at every width in turn, each from where the last one ended: forward, backward, update.

    One compiled step serves all, because a width is an array of the leaf. Give the optimizer of `train.alrs` the same
    widths; other schedules count `len(widths)` updates a batch. The loss is the mean over the widths. See "Nearly
    Lossless Adaptive Bit Switching" (S063).

    Args:
      step: from `make_step`, of a network with weights of `quantize.double_rounding`.
      widths: in the order they are trained, from the widest to the narrowest, each for all weights or path -> bits; or
        `(key, number of the batch) -> bits` of one update, such as `quantize.hasb` gives.

    Raises:
      ValueError: no widths; at use, what `quantize.switch` raises.
    """
    if not callable(widths):
        checks.positive_int("the number of widths", len(widths))

    @functools.wraps(step)
    def joint(state: State, key: Array, x: Array, y: Array) -> tuple[State, Array]:
        before, losses = jnp.copy(state.step), []  # the memory of the state is reused
        for turn, bits in enumerate((widths(key, before),) if callable(widths) else widths):
            state, loss = step(_switched(state, bits), jax.random.fold_in(key, turn), x, y)
            losses.append(loss)
        return state._replace(step=before + jnp.int32(state.finite)), jnp.mean(jnp.stack(losses))

    return joint


def _switched(state: State, bits: Bits) -> State:
    """Paths are those of the variables, as everywhere."""
    if state.others is None:
        return state._replace(fixed=switch(state.fixed, bits))
    fixed: dict[str, Any] = switch({"params": state.fixed}, bits)
    return state._replace(fixed=fixed["params"])
