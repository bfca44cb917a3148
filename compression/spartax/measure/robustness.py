"""Accuracy under attack, example by example."""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from spartax import checks
from spartax.measure.padding import padded
from spartax.records import Array, Attack, LogitsFn


class Robustness(NamedTuple):
    """What attacks did to a network; accuracies are means of these flags.

    Attributes:
      clean: bool [N], classified correctly without attack.
      robust: attack name -> bool [N], correct without attack and still correct after it.
      worst: bool [N], correct without attack and after every attack: the number to report.
      broken_by: attack name -> how many examples it was the first to break, in the order given.
    """

    clean: np.ndarray
    robust: dict[str, np.ndarray]
    worst: np.ndarray
    broken_by: dict[str, int]


def robustness(
    attacks: Mapping[str, Attack],
    logits_fn: LogitsFn,
    x: Array | np.ndarray,
    y: Array | np.ndarray,
    key: Array,
    batch_size: int = 128,
) -> Robustness:
    """Run every attack on every example. An example that is wrong without attack counts as not robust.

    Example `i` is attacked with the randomness `fold_in(key, i)`, so that the result does not depend on `batch_size`.

    Args:
      attacks: name -> attack.
      logits_fn: `x [B, ...] -> logits [B, K]`. Given as `jax.tree_util.Partial(apply, params)`, networks of the same
        structure share one compilation.
      x: clean images in [0, 1], [N, ...].
      y: labels, integers [N].
      key: PRNG key.
      batch_size: examples at a time.

    Raises:
      ValueError: no attack, images outside [0, 1], labels that do not fit, or an attack that leaves [0, 1].
    """
    if not attacks:
        raise ValueError("attacks must hold at least one attack; got none.")
    checks.images("x", x)
    checks.labels("y", y, batch=len(x))
    logits_fn = logits_fn if isinstance(logits_fn, jax.tree_util.Partial) else jax.tree_util.Partial(logits_fn)
    rows = np.arange(len(x), dtype=np.int32)
    clean, robust = [], {name: [] for name in attacks}
    for count, (images, labels, index) in padded(batch_size, x, y, rows):
        clean.append(np.asarray(_right(logits_fn, images, labels))[:count])
        for name, attack in attacks.items():
            flags, inside = _survives(attack, logits_fn, key, images, labels, index)
            if not inside:
                raise ValueError(f"attacks: {name!r} returned images outside [0, 1].")
            robust[name].append(np.asarray(flags)[:count])
    return _collect(np.concatenate(clean), {name: np.concatenate(flags) for name, flags in robust.items()})


def _collect(clean: np.ndarray, survived: dict[str, np.ndarray]) -> Robustness:
    robust, broken_by, left = {}, {}, clean
    for name, flags in survived.items():
        robust[name] = clean & flags
        broken_by[name] = int((left & ~flags).sum())
        left = left & flags
    return Robustness(clean, robust, left, broken_by)


@jax.jit
def _right(logits_fn: LogitsFn, x: Array, y: Array) -> Array:
    return jnp.argmax(logits_fn(x), axis=1) == y


@functools.partial(jax.jit, static_argnums=0)
def _survives(attack: Attack, logits_fn: LogitsFn, key: Array, x: Array, y: Array, index: Array) -> tuple[Array, Array]:
    """Whether each example is still classified correctly, and whether all attacked images are images."""
    found = attack(key, logits_fn, x, y, index=index)
    return _right(logits_fn, found, y), jnp.all((found >= 0) & (found <= 1))
