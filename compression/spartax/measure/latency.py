"""Wall-clock time of functions, side by side."""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from spartax import checks


class Latency(NamedTuple):
    """Times of one function, in seconds.

    Attributes:
      median: half of the calls were faster.
      low: a quarter of the calls were faster.
      high: three quarters of the calls were faster.
      repeats: number of timed calls.
    """

    median: float
    low: float
    high: float
    repeats: int


def latency(functions: Mapping[str, Callable[[], Any]], *, warmups: int = 10, repeats: int = 50) -> dict[str, Latency]:
    """Time functions in turns, so that whatever else the machine does hits all of them alike.

    Each call is waited for (`jax.block_until_ready`); the warm-ups, which include compilation, are not counted. Give
    the dense baseline among the functions: a ratio of times from different runs means little.

    Args:
      functions: name -> function of no arguments, such as `functools.partial(apply, params, x)`.
      warmups: calls of each function that are not counted.
      repeats: calls that are.

    Returns:
      name -> `Latency`.

    Raises:
      ValueError: no function, fewer than 1 warm-up or 2 repeats.
    """
    if not functions:
        raise ValueError("functions must hold at least one function; got none.")
    checks.positive_int("warmups", warmups)
    checks.positive_int("repeats", repeats, least=2)
    times = {name: [] for name in functions}
    for turn in range(warmups + repeats):
        for name in list(functions) if turn % 2 else list(functions)[::-1]:  # nobody always comes second
            start = time.perf_counter()
            jax.block_until_ready(functions[name]())
            times[name].append(time.perf_counter() - start)
    return {name: _quartiles(values[warmups:]) for name, values in times.items()}


def _quartiles(values: list[float]) -> Latency:
    low, median, high = (float(v) for v in np.percentile(values, (25, 50, 75)))
    return Latency(median, low, high, len(values))
