"""Iterative pruning that does not forget an important class: rounds whose loss leans on it until few are missed."""

from collections.abc import Callable, Collection
from typing import NamedTuple

import jax
import numpy as np

from spartax import checks
from spartax.records import Array, Evidence, Info, Layout, Params, Path, Transform
from spartax.train.lottery import next_start

Fit = Callable[[Params, Array, float], Params]  # (params with masks, key, emphasis) -> the same, trained to the end


class Round(NamedTuple):
    """One round that keeps the misses low.

    Attributes:
      params: the masked network, trained to the end.
      info: what the pruning before this training did; empty in round 0.
      emphasis: of the important classes in its loss.
      misses: what `misses` says of it.
    """

    params: Params
    info: Info
    emphasis: float
    misses: float


def class_dependent(
    fit: Fit,
    misses: Callable[[Params], float],
    params: Params,
    transform: Transform,
    layouts: dict[Path, Layout],
    key: Array,
    *,
    rounds: int,
    slack: float = 0.0,
    growth: float = 1.5,
    most: float = 10.0,
) -> list[Round]:
    """Lottery-ticket rounds under the bound `misses <= (1 + slack) * misses of the dense network`.

    A round prunes, rewinds to `params` and trains, as `train.lottery` does. If it misses too many, its training is
    repeated with an emphasis `growth` times larger, which later rounds keep; where that would pass `most`, the rounds
    end, and what misses too many is not returned. The emphasis is the factor of the important classes in the loss:

        fit = lambda params, key, emphasis: ...  # with the loss
        train.class_weighted(train.class_weights(y, important=(1,), emphasis=emphasis), pairwise=1.0, important=(1,))

    The paper says that false negatives are kept low round by round; the rule for the weight is a reconstruction. See
    Entezari and Saukh, Class-dependent Compression of Deep Neural Networks.

    Args:
      fit: trains from the given params with a fresh optimizer and the given emphasis, 1 in round 0.
      misses: the share of the important class that a network misses on held-out examples, such as the `misses` of
        `measure.class_rates`; not on those that the result is reported for.
      params: weights to rewind to.
      transform: how a round prunes, such as `prune.prune(prune.magnitude(), 1 - 0.8**10,
        schedule=prune.exponential(10), regrow=False)`.
      layouts: path -> `Layout` of the selected weights.
      key: PRNG key.
      rounds: number of prunings at most.
      slack: part by which the misses may rise, 0 or more.
      growth: factor of the emphasis, above 1.
      most: the largest emphasis, 1 or more.

    Returns:
      The dense network and every round that kept the bound, sparsest last.

    Raises:
      ValueError: an option out of its range; `misses` gives something outside [0, 1].
    """
    checks.positive_int("rounds", rounds)
    checks.in_range("slack", slack, 0.0, float("inf"), open_high=True)
    checks.in_range("growth", growth, 1.0 + 1e-6, float("inf"), open_high=True)
    checks.in_range("most", most, 1.0, float("inf"), open_high=True)
    train_key, prune_key = jax.random.split(key)
    start, state = transform.init(params, Evidence(layouts, key=prune_key, step=0))
    found = [_trained(fit, misses, start, {}, train_key, 1.0)]
    limit = (1 + slack) * found[0].misses
    for number in range(rounds):
        given = Evidence(layouts, jax.random.fold_in(prune_key, number), step=number)
        start, state, info = next_start(transform, state, start, found[-1].params, given, "weights")
        new = _trained(fit, misses, start, info, train_key, found[-1].emphasis)
        while new.misses > limit and new.emphasis * growth <= most:
            new = _trained(fit, misses, start, info, train_key, new.emphasis * growth)
        if new.misses > limit:
            break
        found.append(new)
    return found


def _trained(
    fit: Fit, misses: Callable[[Params], float], start: Params, info: Info, key: Array, emphasis: float
) -> Round:
    trained = fit(start, key, emphasis)
    missed = float(misses(trained))
    checks.in_range("misses: what it gives", missed, 0.0, 1.0)
    return Round(trained, info, emphasis, missed)


def class_weights(
    y: Array | np.ndarray, classes: int, *, important: Collection[int], emphasis: float = 1.0
) -> tuple[float, ...]:
    """`emphasis * N_others / N_c` for an important class `c` of `N_c` examples, 1 for the others.

    Args:
      y: labels of the training set, integers [N].
      classes: number of classes.
      important: the classes that must not be missed.
      emphasis: positive; 1 gives an important class as much weight as all others together.

    Raises:
      ValueError: labels out of range, a class that is unknown or has no example, or all of them.
    """
    checks.labels("y", y, batch=len(y), classes=classes)
    checks.positive("emphasis", emphasis)
    counts = np.bincount(np.asarray(y), minlength=classes)
    for label in important:
        checks.one_of("important", label, range(classes))
        if not 0 < counts[label] < len(y):
            raise ValueError(f"important: class {label} has {counts[label]} of {len(y)} examples; some must be others.")
    balance = lambda c: emphasis * float(len(y) - counts[c]) / float(counts[c])  # noqa: E731
    return tuple(balance(c) if c in important else 1.0 for c in range(classes))
