"""Accuracy on clean images."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

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
    shape = jax.eval_shape(apply, params, x[:1]).shape
    if len(shape) != 2:
        raise ValueError(f"apply must return logits [B, K]; got shape {shape}.")
    checks.labels("y", y, batch=len(x), classes=shape[1])
    found = [_predict(apply, params, batch)[:count] for count, (batch,) in padded(batch_size, x)]
    return np.concatenate(found) == np.asarray(y)


@functools.partial(jax.jit, static_argnums=0)
def _predict(apply: ApplyFn, params: Params, x: Array) -> Array:
    return jnp.argmax(apply(params, x), axis=1)
