"""The best weights by a score on held-out data, and when to stop."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from spartax import checks
from spartax.records import Params
from spartax.train.logs import check_names
from spartax.train.step import State


class Best(NamedTuple):
    """The best weights so far.

    Attributes:
      score: theirs; minus infinity before the first look.
      step: when they were seen.
      waited: looks since then.
      variables: what `apply` takes.
    """

    score: float
    step: int
    waited: int
    variables: Params


Score = Callable[[Params], float | Mapping[str, float]]


class Validation(NamedTuple):
    """What `train.fit(..., validate=)` takes; see `validation`."""

    score: Score
    every: int
    patience: int | None
    weights: Callable[[State], Params]


def validation(
    score: Score,
    *,
    every: int,
    patience: int | None = None,
    weights: Callable[[State], Params] = lambda state: state.variables,
) -> Validation:
    """Look at the network every so many steps and at the end, keep the best weights, stop when they no longer improve.

    The score should be robust accuracy, whose overfitting is what early stopping is for (Rice et al., arXiv
    2002.11569), on images that are neither trained nor tested on (`data.hold_out`):

        score = lambda v: measure.robustness({"PGD": pgd}, Partial(apply, v), held.x, held.y, key).worst.mean()

    Args:
      score: `variables -> number`, higher is better; or `{"score": number, ...}` with more numbers for the logs, such
        as those of `train.overfitting`; the loop's own names (step, loss, images_per_second) are taken.
      every: steps between two looks.
      patience: stop after this many looks in a row without a better score; never when left out.
      weights: which weights of the state are looked at: `train.averaged` for an average.

    Raises:
      ValueError: `every` or `patience` is no positive integer; at use, no score, one that is not finite, or a
        name that is taken.
    """
    checks.positive_int("every", every)
    if patience is not None:
        checks.positive_int("patience", patience)
    return Validation(score, every, patience, weights)


def prepared(validation: Validation, state: State) -> State:
    """The state with room for the best weights."""
    if state.best is not None:
        return state
    return state._replace(best=Best(-math.inf, int(state.step), 0, _copy(validation.weights(state))))


def looked(validation: Validation, state: State) -> tuple[State, dict[str, float]]:
    """The state after a look, and the score with what else was told."""
    variables, best = validation.weights(state), state.best
    found = validation.score(variables)
    numbers = {
        name: float(value) for name, value in (found if isinstance(found, Mapping) else {"score": found}).items()
    }
    check_names("score", numbers)
    score = numbers.get("score", math.nan)
    if not math.isfinite(score):
        raise ValueError(f"score must be a finite number; got {score} at step {int(state.step)}.")
    if score > best.score:
        best = Best(score, int(state.step), 0, _copy(variables))
    else:
        best = best._replace(waited=best.waited + 1)
    return state._replace(best=best), numbers


def over(validation: Validation | None, state: State) -> bool:
    """Whether patience is at an end."""
    return validation is not None and validation.patience is not None and state.best.waited >= validation.patience


def _copy(variables: Params) -> Params:
    """Memory of its own: the next step takes that of the state."""
    return jax.tree.map(jnp.array, variables)
