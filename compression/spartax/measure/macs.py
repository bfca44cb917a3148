"""Multiply-adds, read off the program."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from spartax import program
from spartax.measure.size import sparsity
from spartax.records import Params, Path


class Macs(NamedTuple):
    """Multiply-adds of one example (1 MAC = 2 FLOP); biases, norms and activations are not counted.

    Attributes:
      dense: with every weight dense.
      run: what is really computed: fewer than dense only where a leaf has a kernel.
      nonzero: what is left of `run` if no multiplication by a zero weight were made: a bound, not a speed.
      by_path: weight path -> `(dense, run, nonzero)`.
    """

    dense: int
    run: int
    nonzero: int
    by_path: dict[Path, tuple[int, int, int]]


def macs(apply_fn: Callable[..., Any], params: Params, x: Any) -> Macs:
    """Count the multiply-adds of `apply_fn(params, x)` for one example.

    Args:
      apply_fn: the plain function (not the one that `compressed` made).
      params: tree of arrays and compressed leaves, with values.
      x: a batch of inputs or its `jax.ShapeDtypeStruct`.

    Raises:
      ValueError: params that do not fit the function.

    Example:
      >>> import jax.numpy as jnp
      >>> import spartax as sx
      >>> from spartax import measure
      >>> params = {"kernel": sx.LowRank(jnp.ones((8, 1)), jnp.ones((1, 6)))}
      >>> found = measure.macs(lambda params, x: x @ params["kernel"], params, jnp.ones((1, 8)))
      >>> found.dense, found.run
      (48, 14)
    """
    zeros = sparsity(params)
    by_path = {}
    for path, usage in program.inspect(apply_fn, params, x).items():
        kept = math.ceil(usage.macs * (1.0 - zeros[path]) - 1e-6)
        by_path[path] = (usage.macs, usage.macs_now, min(usage.macs_now, kept))
    dense, run, nonzero = (sum(row[i] for row in by_path.values()) for i in range(3))
    return Macs(dense, run, nonzero, by_path)
