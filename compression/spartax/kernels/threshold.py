"""The k-th largest of many scores by counting, and the mask of the k largest: no sort, no second copy.

Floats order like integers once their bits are flipped the right way, so the k-th largest value is found by bisection on
these integers: each pass over the scores counts the entries above 15 thresholds at once and leaves a sixteenth of the
range, 8 passes for float32. Counts of different arrays, and of the shards of one array, simply add up.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from spartax import checks
from spartax.records import Array

SECTIONS = 16  # 15 counters still fit the vector registers of a CPU core; 31 spill, and cost more than the passes saved
SMALL = 2**13  # below, one counter for each threshold and entry compiles three times faster and costs nothing
LIMIT = 2**32 - SECTIONS  # counts are uint32, and a point may lie past the end of the range


class Kth(NamedTuple):
    """Where the k largest of all scores end.

    Attributes:
      value: the k-th largest score (the largest one when k = 0).
      kept: uint32 `[arrays]`, how many of the k largest each array holds; equal scores are kept in the order of the
        arrays, so that these add up to k.
      surplus: uint32 `[arrays]`, entries of each array that equal `value` and are not kept.
    """

    value: Array
    kept: Array
    surplus: Array


def kth_largest(scores: Sequence[Array], k: Array | int, axis_name: str | None = None) -> Kth:
    """The k-th largest of all entries of all `scores`, taken together.

    Works under `jit`; outside it every shape of array is compiled once, however many arrays there are.

    Args:
      scores: floating arrays of any shapes, without NaN; sharded arrays are counted where they are. Subnormal numbers
        count as zero, on every device.
      k: how many entries are kept, 0 <= k <= total size; may be traced.
      axis_name: mesh axis to add the counts over, inside `jax.shard_map`, where `scores` are the local shards.

    Raises:
      ValueError: no scores, or more entries than 32 bits count.
    """
    sizes = np.array([s.size for s in scores], np.int64)
    if not 0 < sizes.sum() <= LIMIT:
        raise ValueError(f"scores must hold 1 to {LIMIT} entries; got {sizes.sum()}.")
    total = (lambda n: n) if axis_name is None else (lambda n: lax.psum(n, axis_name))
    kind = jnp.result_type(jnp.float32, *(s.dtype for s in scores))
    count = lambda keys: total(jnp.stack([_count_reaching(s, keys, kind) for s in scores]))  # noqa: E731
    k = jnp.asarray(k, jnp.uint32)
    start = total(jnp.asarray(sizes, jnp.uint32))
    low, high = _bounds(kind)
    concrete = all(checks.is_concrete(x) for x in (*scores, k))
    return _share(k, *_search(count, low, high, jnp.maximum(k, 1), start, concrete), kind)


@jax.jit(static_argnames="kind")
def _share(k: Array, key: Array, reach: Array, above: Array, kind: np.dtype) -> Kth:
    """The entries above the k-th value are kept; what is left of k goes to those equal to it, array by array."""
    ties = reach - above
    left = k - jnp.sum(above, dtype=jnp.uint32)
    before = jnp.cumsum(ties, dtype=jnp.uint32) - ties
    kept_ties = jnp.minimum(ties, left - jnp.minimum(before, left))
    return Kth(_normal(_from_key(key, kind), kind, key), above + kept_ties, ties - kept_ties)


def top(score: Array, k: Array | int) -> Array:
    """Bool mask of exactly the `k` largest entries of `score` (any shape); ties go to the lowest flat index.

    Args:
      score: floating array without NaN.
      k: 0 <= k <= size; may be traced.
    """
    value, _, surplus = kth_largest([score], k)
    size = jnp.asarray(score.size, jnp.uint32)
    # The first flat index whose tie is left out is the last one that has `surplus` ties from it on.
    count = lambda starts: _count_ties_from(score, value, starts)[None]  # noqa: E731
    low = jnp.where(surplus[0] > 0, jnp.zeros_like(size), size)
    end = _search(count, low, size, surplus[0], jnp.zeros_like(surplus), checks.is_concrete(surplus))[0]
    return _keep(score, value, end)


def _search(
    count: Callable[[Array], Array], low: Array, high: Array, k: Array, start: Array, concrete: bool
) -> tuple[Array, Array, Array]:
    """The largest integer in [low, high] at which the falling `count` adds up to at least `k`, as it does at `low`.

    `count(points [15]) -> [rows, 15]`; `start [rows]` is the count at `low`. Returns the integer, and the counts there
    and just past it (zero past `high`).
    """
    state = (low, high, start, jnp.zeros_like(start))
    unsettled = lambda s: s[0] < s[1]  # noqa: E731
    narrow = lambda s: _narrow(s, count(_points(s[0], s[1])), k)  # noqa: E731
    if not (concrete and checks.is_concrete(state[3])):  # the last is traced whenever anything around is
        state = lax.while_loop(unsettled, narrow, state)
    else:  # driven from here, arrays of one shape share one compiled count
        while unsettled(state):
            state = narrow(state)
    return state[0], state[2], state[3]


@jax.jit
def _points(low: Array, high: Array) -> Array:
    return low + ((high - low) // SECTIONS + 1) * jnp.arange(1, SECTIONS, dtype=low.dtype)


@jax.jit
def _narrow(state: tuple[Array, Array, Array, Array], counts: Array, k: Array) -> tuple[Array, Array, Array, Array]:
    """The section of [low, high] between the last point that counts at least `k` and the next."""
    low, high, reach, above = state
    width = (high - low) // SECTIONS + 1
    counts = jnp.where(_points(low, high) > high, above[:, None], counts)
    passed = jnp.sum(jnp.sum(counts, axis=0, dtype=jnp.uint32) >= k, dtype=jnp.int32)
    columns = jnp.concatenate([reach[:, None], counts, above[:, None]], axis=1)
    low = low + width * passed.astype(low.dtype)
    return low, jnp.minimum(high, low + (width - 1)), columns[:, passed], columns[:, passed + 1]


@jax.jit(static_argnames="kind")
def _count_reaching(score: Array, keys: Array, kind: np.dtype) -> Array:
    """How many scores are at least as large as the float of each key."""
    levels = _from_key(keys, kind)
    score = _normal(score, kind, levels)
    return _count(lambda level: score >= level, levels)


@jax.jit
def _count_ties_from(score: Array, value: Array, starts: Array) -> Array:
    """How many scores equal `value` from each flat index on."""
    tied, index = _normal(score, value.dtype, starts) == value, _flat_index(score.shape, starts)
    return _count(lambda start: tied & (index >= start), starts)


@jax.jit
def _keep(score: Array, value: Array, end: Array) -> Array:
    score = _normal(score, value.dtype, end)
    return (score > value) | ((score == value) & (_flat_index(score.shape, end) < end))


def _normal(score: Array, kind: np.dtype, where: Array) -> Array:
    """The scores with subnormal numbers as zero: some devices compare them so, others do not."""
    score = _recomputed(score, where).astype(kind)
    return jnp.where(jnp.abs(score) < jnp.finfo(kind).tiny, jnp.zeros((), kind), score)


def _recomputed(x: Array, where: Array) -> Array:
    """`x` as if it depended on `where`, which changes inside a loop.

    What is computed from it stays in the loop, entry by entry; XLA would move it out and store a second array as large
    as the scores.
    """
    return lax.optimization_barrier((x, where))[0]


def _count(test: Callable[[Array], Array], points: Array) -> Array:
    """How often `test(point)` is true, for every point, in one pass over the scores."""
    shape = jax.eval_shape(test, points[0]).shape
    axes = tuple(range(len(shape)))
    if np.prod(shape) <= SMALL:
        return jnp.sum(jax.vmap(test, out_axes=-1)(points), axes, dtype=jnp.uint32)
    # One reduction of many operands reads its input once; XLA fuses it with the tests.
    ones = tuple(test(point).astype(jnp.uint32) for point in points)
    add = lambda a, b: tuple(x + y for x, y in zip(a, b))  # noqa: E731
    return jnp.stack(lax.reduce(ones, (np.uint32(0),) * len(ones), add, axes))


def _flat_index(shape: tuple[int, ...], where: Array) -> Array:
    """Row-major position of every entry, uint32; not stored, XLA computes it where it is used."""
    strides = np.cumprod((1, *shape[:0:-1]), dtype=np.uint32)[::-1]
    parts = (lax.broadcasted_iota(jnp.uint32, shape, a) * strides[a] for a in range(len(shape)))
    return sum(parts, jnp.broadcast_to(_recomputed(jnp.zeros((), jnp.uint32), where), shape))


def _word(kind: np.dtype) -> np.dtype:
    """The unsigned integers of the width of a float."""
    return np.dtype(f"uint{8 * np.dtype(kind).itemsize}")


def _bounds(kind: np.dtype) -> tuple[Array, Array]:
    """The keys of -infinity and infinity: unsigned integers in the order of the floats."""
    infinity = np.asarray(np.inf, kind).view(_word(kind))
    return jnp.asarray(~(infinity | _top_bit(kind))), jnp.asarray(infinity | _top_bit(kind))


def _from_key(key: Array, kind: np.dtype) -> Array:
    """The floats of these integers: those from zero on have the top bit set, the others all bits flipped."""
    top_bit = _top_bit(kind)
    return lax.bitcast_convert_type(jnp.where(key >= top_bit, key ^ top_bit, ~key), kind)


def _top_bit(kind: np.dtype) -> Any:
    word = _word(kind)
    return word.type(1 << (8 * word.itemsize - 1))
