"""Where the Square attack starts and what it tries next, for each norm.

Images are handled as rows of interleaved pixels, `[B, H, W * C]`: everything a window does is then a product of a row
mask and a column mask, and loops over the last axis run at full speed, which they do not over three channels.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from spartax.attacks import noise, objective, threats
from spartax.attacks import square_patterns as patterns
from spartax.attacks.projections import l1_ball_box
from spartax.records import Array

TINY = 1e-12


class Chance(NamedTuple):
    """The random part of one query, for every example.

    Attributes:
      corners: uniform in [0, 1), `[B, 4]`: row and column of the window, row and column of the donor window.
      transposed: int32 `[B]`, 0 or 1: orientation of the pattern.
      sign: -1 or 1, `[B, C]`.
    """

    corners: Array
    transposed: Array
    sign: Array


class Moves(NamedTuple):
    """The moves of one norm.

    Attributes:
      start: `(keys [B], shared [B], x0) -> x`; what parity mode shares between examples is drawn from `shared`.
      propose: `(x, x0, chance, number) -> candidate`, all three `[B, H, W * C]`; `number` is the query, int32 [B].
    """

    start: Callable[[Array, Array, Array], Array]
    propose: Callable[[Array, Array, Chance, Array], Array]


class Window(NamedTuple):
    """A square inside the image, for every example.

    Attributes:
      down: each row of the image, counted from the first of the window, int32 `[B, H]`.
      across: the same for the column of each entry of a row, `[B, W * C]`.
      rows: 1 for a row that meets the window, else 0, float `[B, H]`.
      columns: the same for each entry of a row, `[B, W * C]`.
    """

    down: Array
    across: Array
    rows: Array
    columns: Array

    def mask(self) -> Array:
        """Whether an entry lies in the window, bool `[B, H, W * C]`."""
        return (self.rows > 0.5)[:, :, None] & (self.columns > 0.5)[:, None, :]


def moves(norm: str, eps: float, sides: np.ndarray, shape: tuple[int, int, int], *, full: bool) -> Moves:
    """The moves of a norm on images of `shape` `[H, W, C]`.

    Args:
      norm: `"linf"`, `"l2"` or `"l1"`.
      eps: radius.
      sides: window side at each query.
      shape: `(H, W, C)`.
      full: whether windows reach the last row and column; they do not in the reference implementation.
    """
    return stripes(eps, sides, shape, full=full) if norm == "linf" else bumps(norm, eps, sides, shape, full=full)


def stripes(eps: float, sides: np.ndarray, shape: tuple[int, int, int], *, full: bool) -> Moves:
    """Linf: starts with vertical stripes at `x0 +- eps`; a query sets each channel of a window to one of these two."""
    width = shape[1]

    def start(keys: Array, shared: Array, x0: Array) -> Array:
        del shared
        sign = signs(noise.uniform(keys, x0[:, :1]))
        return jnp.clip(x0 + eps * sign, 0.0, 1.0)

    def propose(x: Array, x0: Array, chance: Chance, number: Array) -> Array:
        window = place(chance.corners[:, :2], jnp.asarray(sides)[number], shape, full=full)
        edge = jnp.clip(x0 + eps * along(chance.sign, width), 0.0, 1.0)
        return jnp.where(window.mask(), edge, x)

    return Moves(start, propose)


def bumps(norm: str, eps: float, sides: np.ndarray, shape: tuple[int, int, int], *, full: bool) -> Moves:
    """L2 and l1: starts with tiles of double bumps; a query empties one window and adds a double bump in another."""
    height, width, channels = shape
    kinds, kind = np.unique(sides, return_inverse=True)
    table = patterns.patches(kinds, norm)
    tile, tile_number, tiles = patterns.tiling(height, width, norm)

    def start(keys: Array, shared: Array, x0: Array) -> Array:
        transposed = noise.uniform(objective.fold(shared, 0), jnp.zeros((len(shared), tiles))) < 0.5
        sign = signs(noise.uniform(keys, jnp.zeros((len(keys), tiles, channels))))
        pattern = jnp.where(transposed[:, tile_number], tile[1], tile[0])
        return within(pattern[..., None] * sign[:, tile_number], x0)

    def within(delta: Array, x0: Array) -> Array:
        if norm == "l1":
            return jnp.clip(x0 + l1_ball_box(delta, x0, eps * (1 - 1e-6)), 0.0, 1.0)
        return jnp.clip(x0 + eps * threats.unit(delta, norm), 0.0, 1.0)

    def propose(x: Array, x0: Array, chance: Chance, number: Array) -> Array:
        side = jnp.asarray(sides)[number]
        window = place(chance.corners[:, :2], side, shape, full=full)
        donor = place(chance.corners[:, 2:], side, shape, full=full)
        pattern = paste(table, 2 * jnp.asarray(kind)[number] + chance.transposed, window, along(chance.sign, width))
        return within(exchange(norm, eps, x - x0, pattern, window, donor, channels), x0)

    return Moves(start, propose)


def exchange(
    norm: str, eps: float, delta: Array, pattern: Array, window: Window, donor: Window, channels: int
) -> Array:
    """The perturbation with the donor window emptied and its budget spent on `pattern` in `window`.

    In each channel the window gets `pattern + d / |d|` (d: what it held) at the norm that both windows held together
    plus an equal share of what the image has left to `eps`. All but the numbers are `[B, H, W * C]`.
    """
    power, root = (jnp.square, jnp.sqrt) if norm == "l2" else (jnp.abs, lambda total: total)
    width = delta.shape[2] // channels
    rows, columns = (
        [one, two, one * two, jnp.ones_like(one)]
        for one, two in ((window.rows, donor.rows), (window.columns, donor.columns))
    )
    here, there, shared, everywhere = masked_sums(power(delta), rows, columns, channels)
    spare = jnp.maximum(power(eps) - jnp.sum(everywhere, 1, keepdims=True), 0.0)
    budget = root(spare / channels + jnp.maximum(here + there - shared, 0.0))
    budget = budget if norm == "l2" else budget * channels  # the factor is the reference's
    fresh = pattern + delta * along(1 / (root(here) + TINY), width)
    (length,) = map(root, masked_sums(power(fresh), [window.rows], [window.columns], channels))
    kept = jnp.where(donor.mask(), 0.0, delta)
    return jnp.where(window.mask(), fresh * along(budget / (length + TINY), width), kept)


def masked_sums(values: Array, rows: list[Array], columns: list[Array], channels: int) -> Array:
    """Sums of `[B, H, W * C]` over entries in `rows[k] [B, H]` and `columns[k] [B, W * C]`, by channel: `[k, B, C]`.

    One small matrix product: ten times faster on CPU than masked sums.
    """
    left, right = jnp.stack(rows, 1), jnp.stack(columns, 1)
    by_column = jnp.einsum("bkh,bhx->bkx", left, values, precision=lax.Precision.HIGHEST) * right
    return jnp.sum(by_column.reshape(*left.shape[:2], -1, channels), 2).swapaxes(0, 1)


def place(corner: Array, side: Array, shape: tuple[int, int, int], *, full: bool) -> Window:
    """The window at a random corner: rows `0 ... H - s`, or `0 ... H - s - 1` unless `full`."""
    height, width, channels = shape
    room = jnp.stack([height - side, width - side], axis=1)
    first = jnp.minimum((corner * (room + full).astype(corner.dtype)).astype(jnp.int32), room)
    down, across = jnp.arange(height) - first[:, :1], jnp.arange(width * channels) // channels - first[:, 1:]
    return Window(down, across, span(first[:, 0], side, height, 1), span(first[:, 1], side, width, channels))


def span(first: Array, side: Array, count: int, repeats: int) -> Array:
    """1 in the places `first ... first + side - 1` of `count`, else 0, each place repeated: `[B, count * repeats]`.

    A product with a triangle of ones, because XLA keeps its result; comparisons it would repeat for every pixel.
    """
    started = np.repeat(np.triu(np.ones((count + 1, count), np.float32)), repeats, axis=1)
    return (jax.nn.one_hot(first, count + 1) - jax.nn.one_hot(first + side, count + 1)) @ started


def paste(table: np.ndarray, which: Array, window: Window, scale: Array) -> Array:
    """`scale * table[which]` (a patch of `[kinds, 2, S, S]`, one number for the first two axes) at the window.

    As products with one-hot matrices, the exact equivalent of a gather, which is slow where each entry has an index.
    """
    size = table.shape[-1]
    flat, chosen = table.reshape(-1, size * size), jax.nn.one_hot(which, table.shape[0] * 2)
    pick = jnp.matmul(chosen, flat, precision=lax.Precision.HIGHEST)
    down, across = (jnp.arange(size) == offset[..., None] for offset in (window.down, window.across))
    halves = down.astype(scale.dtype), pick.reshape(-1, size, size), across.astype(scale.dtype)
    return scale * jnp.einsum("bhi,bij,bxj->bhx", *halves, precision=lax.Precision.HIGHEST)


def lines(images: Array) -> Array:
    """`[B, H, W, C]` as `[B, H, W * C]`."""
    return images.reshape(*images.shape[:2], -1)


def along(values: Any, width: int) -> Array:
    """One number per channel, `[B, C]`, for each entry of a row: `[B, 1, W * C]` (a product for the same reason)."""
    tiles = np.tile(np.eye(values.shape[1], dtype=np.float32), width)
    return jnp.matmul(values, tiles, precision=lax.Precision.HIGHEST)[:, None, :]


def signs(uniform: Array) -> Array:
    """-1 or 1 with equal probability."""
    return jnp.where(uniform < 0.5, -1.0, 1.0)
