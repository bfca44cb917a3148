"""Accuracy on clean images."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.tree_util import Partial

from spartax import checks
from spartax.measure.padding import padded
from spartax.records import ApplyFn, Array, Params


def accuracy(
    apply: ApplyFn, params: Params, x: Array | np.ndarray, y: Array | np.ndarray, batch_size: int = 256
) -> float:
    """Fraction of examples whose largest logit is that of their label.

    Args:
      apply: `apply(params, x [B, ...]) -> logits [B, K]`; one that `compressed` made if params hold compressed leaves.
      params: its params.
      x: images [N, ...].
      y: labels, integers [N].
      batch_size: examples at a time.

    Returns:
      A number in [0, 1].

    Raises:
      ValueError: labels of a wrong shape, dtype or range.
    """
    return float(correct(apply, params, x, y, batch_size).mean())


def correct(
    apply: ApplyFn, params: Params, x: Array | np.ndarray, y: Array | np.ndarray, batch_size: int = 256
) -> np.ndarray:
    """Which examples are classified correctly, bool [N]; arguments as for `accuracy`."""
    logits_fn = Partial(apply, params)
    shape = jax.eval_shape(logits_fn, x[:1]).shape
    if len(shape) != 2:
        raise ValueError(f"apply must return logits [B, K]; got shape {shape}.")
    checks.labels("y", y, batch=len(x), classes=shape[1])
    checks.positive_int("batch_size", batch_size)
    return predictions(logits_fn, x, min(batch_size, len(x))) == np.asarray(y)


def predictions(
    logits_fn: Partial, x: Array | np.ndarray, batch_size: int, place: Callable[[Any], Any] = lambda batch: batch
) -> np.ndarray:
    """The class of the largest logit of each example, int [N]; -1 where a logit is NaN or infinite.

    `place` puts every batch on its devices (`sharding.spreader`).
    """
    jitted = hasattr(logits_fn.func, "lower")  # its own compilation is then used
    call = logits_fn if jitted else functools.partial(_call, logits_fn)
    logits = np.concatenate([np.asarray(call(place(batch)))[:count] for count, (batch,) in padded(batch_size, x)])
    return np.where(np.isfinite(logits).all(axis=1), np.argmax(logits, axis=1), -1)


@jax.jit
def _call(logits_fn: Partial, x: Array) -> Array:
    return logits_fn(x)
