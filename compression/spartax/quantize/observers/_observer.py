"""What an observer is, and what it looks at."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from spartax.kernels.uniform import Uniform
from spartax.records import Array

CANDIDATES = 100  # ranges that a search tries


class Seen(NamedTuple):
    """The inputs of one weight on the calibration data.

    Attributes:
      low: the smallest, zero included.
      high: the largest, zero included.
      counts: how many lie in each of equal bins from `-m` to `m`, `m = max(-low, high)`, `[bins]`; None if not needed.
    """

    low: Array
    high: Array
    counts: Any


class Observer(NamedTuple):
    """From where to where activations are rounded.

    Attributes:
      needs: fields of the evidence, of `ranges` and `histograms`.
      fit: `(seen, grid) -> (low <= 0, high >= 0)`; a symmetric grid reaches as far as the larger of both.
    """

    needs: frozenset[str]
    fit: Callable[[Seen, Uniform], tuple[Array, Array]]


def edges(seen: Seen) -> tuple[Array, Array]:
    """Lower and upper ends of the bins, `[bins]`."""
    half = len(seen.counts) // 2
    steps = jnp.arange(-half, half + 1) * (jnp.maximum(-seen.low, seen.high) / half)
    return steps[:-1], steps[1:]


def shrunk(seen: Seen) -> tuple[Array, Array]:
    """`(low, high)` of the candidates of a search, from the whole range down to a hundredth, `[CANDIDATES]` each."""
    share = jnp.arange(CANDIDATES, 0, -1) / CANDIDATES
    return seen.low * share, seen.high * share
