"""Accuracy under attack, example by example."""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np
from jax.tree_util import Partial

from spartax import checks
from spartax.measure.accuracy import predictions
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
    *,
    surrogate: LogitsFn | None = None,
) -> Robustness:
    """Run every attack on every example that is classified correctly; the others count as not robust.

    Example `i` is attacked with the randomness `fold_in(key, i)`, so that the result does not depend on `batch_size`.

    Args:
      attacks: name -> attack.
      logits_fn: `x [B, ...] -> logits [B, K]`, the network that is judged. Given as `jax.tree_util.Partial(apply,
        params)`, networks of the same structure share one compilation.
      x: clean images in [0, 1], [N, ...].
      y: labels, integers [N].
      key: PRNG key.
      batch_size: examples at a time.
      surrogate: the network whose gradients the attacks follow, `logits_fn` when left out. `Partial(apply,
        dense(params))` computes the same function as a network with compressed leaves, and shares the compilation of
        the dense network; any other network makes a transfer attack. The verdict is always that of `logits_fn`.

    Raises:
      ValueError: no attack, images outside [0, 1], labels that do not fit, or an attack that leaves [0, 1].
    """
    if not attacks:
        raise ValueError("attacks must hold at least one attack; got none.")
    checks.images("x", x)
    checks.labels("y", y, batch=len(x))
    x, y = np.asarray(x), np.asarray(y)
    size = min(batch_size, len(x))
    network, target = (_partial(f) for f in (logits_fn, surrogate or logits_fn))
    clean = predictions(network, x, size) == y
    robust = {name: np.zeros(len(x), bool) for name in attacks}
    rows = np.flatnonzero(clean).astype(np.int32)
    for name, attack in attacks.items():
        if len(rows):
            found = _attacked(name, attack, target, key, size, (x[rows], y[rows], rows))
            robust[name][rows] = predictions(network, found, size) == y[rows]
    return _collect(clean, robust)


def _collect(clean: np.ndarray, robust: dict[str, np.ndarray]) -> Robustness:
    broken_by, left = {}, clean
    for name, flags in robust.items():
        broken_by[name] = int((left & ~flags).sum())
        left = left & flags
    return Robustness(clean, robust, left, broken_by)


def _partial(logits_fn: LogitsFn) -> Partial:
    """A function whose arguments bound so far are a pytree, so that new values do not compile anew."""
    return logits_fn if isinstance(logits_fn, Partial) else Partial(logits_fn)


def _attacked(
    name: str, attack: Attack, logits_fn: Partial, key: Array, batch_size: int, examples: tuple[np.ndarray, ...]
) -> np.ndarray:
    """The images that the attack found."""
    found = [np.asarray(_run(attack, logits_fn, key, *batch))[:count] for count, batch in padded(batch_size, *examples)]
    images = np.concatenate(found)
    if not np.all((images >= 0) & (images <= 1)):  # NaN fails both
        raise ValueError(f"attacks: {name!r} returned images outside [0, 1].")
    return images


@functools.partial(jax.jit, static_argnums=0)
def _run(attack: Attack, logits_fn: Partial, key: Array, x: Array, y: Array, index: Array) -> Array:
    return attack(key, logits_fn, x, y, index=index)
