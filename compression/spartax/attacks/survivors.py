"""Running an attack on what is still robust: batches of a few fixed sizes, from which broken examples are taken out.

An example's result depends on its own key and iteration only, so it does not matter which others are in its batch.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from spartax.attacks.network import network
from spartax.attacks.resumable import Resumable, Rows
from spartax.records import Array

# Rows times iterations that a smaller size must save to be worth its compilation, and the least size.
WORTH, LEAST = 20_000, 16


Tick = Callable[[int, int], None]  # told (rows computed, iterations) after every piece of work


class Broken(NamedTuple):
    """Examples that a batch broke: their rows, images, and the run and iteration of the first success."""

    rows: np.ndarray
    images: np.ndarray
    run: np.ndarray
    iteration: np.ndarray


class Compiled(NamedTuple):
    """One attack, jitted; one compilation for every size and every structure of the model.

    Attributes:
      attack: the attack.
      every: iterations between two looks at what is broken.
      start, advance, found, take: `Resumable.start`, `.advance` (these with the model as a pytree in the place of the
        network), `.outcome` without its best, and a selection of rows.
      place: puts the arrays of a batch on the devices.
      share: sizes are multiples of this (the number of devices).
    """

    attack: Resumable
    every: int
    start: Callable[..., Any]
    advance: Callable[..., Any]
    found: Callable[..., Any]
    take: Callable[..., Any]
    place: Callable[[Any], Any]
    share: int


def compiled(attack: Resumable, every: int, place: Callable[[Any], Any], share: int) -> Compiled:
    """The attack ready to run on batches of any size."""
    return Compiled(
        attack,
        max(every, attack.steps // 50),
        jax.jit(lambda model, rows, run: attack.start(network(model), with_keys(rows), run)),
        jax.jit(lambda model, state, count: attack.advance(network(model), state, count), donate_argnums=1),
        jax.jit(lambda state: attack.outcome(state)[:3]),
        jax.jit(lambda state, rows: jax.tree.map(lambda leaf: leaf[rows], state)),
        place,
        share,
    )


def with_keys(rows: Rows) -> Rows:
    """Rows whose keys travel as the words they are made of."""
    return rows._replace(keys=as_keys(rows.keys))


def as_keys(words: Array) -> Array:
    """The keys made of these words, uint32 [B, 2]."""
    return jax.random.wrap_key_data(words, impl="threefry2x32")


def batches(rows: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """The rows in as few batches as fit, of nearly equal length."""
    return np.array_split(rows, -(-len(rows) // batch_size)) if len(rows) else []


def fitting(count: int, share: int) -> int:
    """The least allowed size for `count` rows: at most an eighth more, and a multiple of the number of devices."""
    step = -(-max(1, 2 ** (count.bit_length() - 4)) // share) * share
    return -(-max(count, 1) // step) * step


def smaller(size: int, alive: int, remaining: int, call: Compiled) -> int:
    """The size to go on with: half, a quarter, ... of `size` where that holds all alive rows and pays."""
    best = size
    while best % (2 * call.share) == 0 and best // 2 >= max(alive, LEAST):
        best //= 2
    return best if (size - best) * remaining * call.attack.forwards >= WORTH else size


def attack_batch(call: Compiled, model: Any, rows: Rows, size: int, batches_left: int, tick: Tick) -> Broken | None:
    """All runs of an attack on one batch of examples, all of them correctly classified.

    Args:
      call: the attack.
      model: `x -> logits`, a pytree (`jax.tree_util.Partial`).
      rows: the examples, arrays of `n <= size` rows; the keys as uint32 [n, 2].
      size: what to pad to.
      batches_left: batches of this attack that are still to come, with this one; they share compilations.
      tick: told what was done.

    Returns:
      The broken examples, None if there are none; `rows` counts from the first of the batch.
    """
    runs, steps = call.attack.runs(rows.logits.shape[1]), call.attack.steps
    left, found = np.arange(len(rows.y)), []
    for run in range(runs):
        size = smaller(size, len(left), steps * (runs - run) * batches_left, call)
        state = call.start(model, call.place(Rows(*(leaf[padded(left, size)] for leaf in rows))), run)
        broken = one_run(call, model, state, left, run, batches_left, tick)
        if broken is not None:
            found.append(broken)
            left = np.setdiff1d(left, broken.rows)
        if not len(left):
            break
    return join(found)


def one_run(
    call: Compiled, model: Any, state: Any, left: np.ndarray, run: int, batches_left: int, tick: Tick
) -> Broken | None:
    """One run on the examples `left`, which are the first rows of the state.

    What broke is collected at every look, whatever becomes of the batch: an attack may go on to better images, and how
    long it does must not depend on the other rows.
    """
    done, found, steps = 0, [], call.attack.steps
    seen = np.zeros(len(left), bool)
    while done < steps and not seen.all():
        count = min(call.every, steps - done)
        state, done = call.advance(model, state, count), done + count
        tick(len(left), count)
        broken = np.asarray(state.broken)
        new = broken[: len(left)] & ~seen
        if new.any():
            found.append(harvest(call, state, left, np.flatnonzero(new), run))
            seen |= new
        size = smaller(len(broken), int(np.sum(~seen)), (steps - done) * batches_left, call)
        if size < len(broken) and not seen.all():
            keep = np.flatnonzero(~seen)
            left, seen = left[keep], seen[keep]
            state = call.place(call.take(state, padded(keep, size)))
    return join(found)


def padded(rows: np.ndarray, size: int) -> np.ndarray:
    """`rows` filled up to `size` with copies of the first."""
    return np.concatenate([rows, np.full(size - len(rows), rows[0])])


def harvest(call: Compiled, state: Any, left: np.ndarray, rows: np.ndarray, run: int) -> Broken:
    """The examples in these rows of the state."""
    images, _, iteration = call.found(state)
    return Broken(left[rows], np.asarray(images)[rows], np.full(len(rows), run), np.asarray(iteration)[rows])


def join(found: list[Broken]) -> Broken | None:
    """All of them in one; None if there are none."""
    return Broken(*(np.concatenate(parts) for parts in zip(*found))) if found else None
