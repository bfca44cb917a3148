"""Per output: every output unit keeps as many entries as any other."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from spartax.kernels import threshold
from spartax.records import Array, Layout, Pattern


def per_output() -> Pattern:
    """Keeps the `keep // O` largest scores of every output unit, the comparison group of Wanda.

    A unit is one index of the output axes (and of the stack). What `O` does not divide goes, one entry each, to the
    units whose next score is largest. Ties go to the lowest flat index. See Sun et al., A Simple and Effective Pruning
    Approach for Large Language Models, arXiv 2306.11695.
    """
    return _Lines()


class _Lines(NamedTuple):
    """The pattern; a value, so that its span can be asked for."""

    span: int = 1

    def __call__(self, score: Array, keep: int, layout: Layout) -> Array:
        units = score.size // math.prod(score.shape[axis] for axis in layout.inputs)
        rank = _ranks(score, layout.inputs)
        next_in_line = jnp.where(rank == keep // units, score, -jnp.inf)
        return (rank < keep // units) | threshold.top(next_in_line, keep % units)


@jax.jit(static_argnums=1)
def _ranks(score: Array, inputs: tuple[int, ...]) -> Array:
    """How many entries of the same output unit come before each: larger, or equal and earlier."""
    flat = jnp.moveaxis(score, sorted(inputs), range(len(inputs)))
    lines = flat.reshape(math.prod(flat.shape[: len(inputs)]), -1)
    order = jnp.argsort(lines, axis=0, stable=True, descending=True)
    rank = jnp.argsort(order, axis=0)
    return jnp.moveaxis(rank.reshape(flat.shape), range(len(inputs)), sorted(inputs))
