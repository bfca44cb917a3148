"""Patterns that keep or remove whole units: tiles of the matrix `[inputs, outputs]` that a weight is."""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from spartax import checks
from spartax.records import Array, Layout

REDUCE = ("mean", "sum")


class Units(NamedTuple):
    """The pattern: the best units that fit in `keep` entries.

    `keep` counts entries, as for every pattern. Where all units have one size and `keep` is a multiple of it, exactly
    `keep` entries stay; where not (tiles at an edge are smaller), the longest prefix of the ranking that fits.

    Attributes:
      tile: `(inputs, outputs, spatial) -> (rows, columns)` of one unit, from the sizes of the matrix and the number of
        spatial positions among its inputs.
      reduce: the score of a unit is the `"mean"` or the `"sum"` of its entries'.
      features_first: whether the input feature is the slow index of a row, so that its spatial positions lie together.
    """

    tile: Callable[[int, int, int], tuple[int, int]]
    reduce: str = "mean"
    features_first: bool = False

    def unit(self, shape: tuple[int, ...], layout: Layout) -> int:
        """Entries of one whole unit."""
        return math.prod(self._view(shape, layout).tile)

    def spread(self, score: Array, layout: Layout) -> Array:
        """The score of its unit for every entry, in the shape of the weight: what an allocation ranks."""
        return _spread(score, self._view(score.shape, layout), self.reduce)

    def __call__(self, score: Array, keep: int, layout: Layout) -> Array:
        return _mask(score, keep, self._view(score.shape, layout), self.reduce)

    def _view(self, shape: tuple[int, ...], layout: Layout) -> "_View":
        inputs = layout.inputs[-1:] + layout.inputs[:-1] if self.features_first else layout.inputs
        stack, rows, columns = (tuple(shape[a] for a in axes) for axes in (layout.stack, inputs, layout.outputs))
        sizes = math.prod(rows), math.prod(columns)
        spatial = math.prod(shape[a] for a in layout.inputs[:-1])
        tile = self.tile(*sizes, spatial)
        axes = (*layout.stack, *inputs, *layout.outputs)
        return _View(axes, (math.prod(stack), *sizes), (min(tile[0], sizes[0]), min(tile[1], sizes[1])))


class _View(NamedTuple):
    """A weight as matrices `[stack, inputs, outputs]`: the order of its axes, the sizes, the tile."""

    axes: tuple[int, ...]
    sizes: tuple[int, int, int]
    tile: tuple[int, int]

    @property
    def entries(self) -> np.ndarray:
        """Entries of every unit `[1, row tiles, column tiles]`; those at an edge are smaller."""
        counts = [np.minimum(t, n - np.arange(0, n, t)) for n, t in zip(self.sizes[1:], self.tile)]
        return np.multiply.outer(*counts)[None]


def reduction(value: str) -> str:
    """The option `reduce` of every pattern of units, checked."""
    checks.one_of("reduce", value, REDUCE)
    return value


@functools.partial(jax.jit, static_argnums=(1, 2))
def _spread(score: Array, view: _View, reduce: str) -> Array:
    return _entries(_scores(score, view, reduce), score.shape, view)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _mask(score: Array, keep: Array | int, view: _View, reduce: str) -> Array:
    """Units by falling score, ties to the lower index, as long as all of them together fit."""
    scores = _scores(score, view, reduce)
    order = jnp.argsort(scores.ravel(), stable=True, descending=True)
    sizes = jnp.asarray(np.broadcast_to(view.entries, scores.shape).ravel())
    fits = jnp.cumsum(sizes[order]) <= keep
    kept = jnp.zeros(fits.shape, jnp.bool_).at[order].set(fits)
    return _entries(kept.reshape(scores.shape), score.shape, view)


def _scores(score: Array, view: _View, reduce: str) -> Array:
    """Score of every unit, `[stack, row tiles, column tiles]`."""
    (_, m, n), (rows, columns) = view.sizes, view.tile
    matrix = jnp.transpose(score, view.axes).reshape(view.sizes)
    matrix = jnp.pad(matrix, ((0, 0), (0, -m % rows), (0, -n % columns)))
    tiles = matrix.reshape(matrix.shape[0], -1, rows, matrix.shape[2] // columns, columns)
    total = jnp.sum(tiles, axis=(2, 4))
    return total / jnp.asarray(view.entries, total.dtype) if reduce == "mean" else total


def _entries(units: Array, shape: tuple[int, ...], view: _View) -> Array:
    """The value of its unit for every entry."""
    _, m, n = view.sizes
    rows, columns = view.tile
    matrix = jnp.repeat(jnp.repeat(units, rows, axis=1)[:, :m], columns, axis=2)[:, :, :n]
    return jnp.transpose(matrix.reshape([shape[a] for a in view.axes]), np.argsort(view.axes).tolist())
