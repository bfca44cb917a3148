"""The training loop."""

import time
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from spartax.records import Array
from spartax.train.refresh import Refresh
from spartax.train.step import State, Step

_REFRESH_KEYS = 2**31  # keys of refreshes begin where those of steps end
_CHECK_EVERY = 10  # steps between two looks at the loss: looking waits for the device


def fit(
    step: Step,
    state: State,
    batches: Iterable[tuple[Any, ...]],
    key: Array,
    *,
    refresh: Refresh | None = None,
    total: int | None = None,
    name: str = "train",
    progress: bool = True,
) -> tuple[State, np.ndarray]:
    """Run `step` over `batches`, with a progress bar.

    Step number n uses `fold_in(key, n)`, counted by the state, so that a continued run draws what one long run draws.

    Args:
      step: from `make_step`.
      state: from `init_state`, or of an earlier `fit`; its memory is reused.
      batches: `(x [B, ...], y [B], ...)`, as `data.batches` gives.
      key: PRNG key.
      refresh: from `train.make_refresh`: masks follow the schedule of a method; where a step is due for it, they are
        refreshed before that step, on its batch.
      total: number of batches, for the time left.
      name: shown beside the bar.
      progress: whether to show it.

    Returns:
      The last state, and the loss of every step, float32 [steps].

    Raises:
      FloatingPointError: the loss is NaN or infinite.
      ValueError: there was no batch.
    """
    losses: list[Any] = []
    first, start, images = int(state.step), time.perf_counter(), 0
    with _bar(progress) as bar:
        task = bar.add_task(name, total=total, note="")
        for number, (x, y, *_) in enumerate(batches):
            if refresh is not None and refresh.due(first + number):
                state = refresh.update(state, jax.random.fold_in(key, _REFRESH_KEYS + first + number), x, y)
            state, loss = step(state, jax.random.fold_in(key, first + number), x, y)
            losses.append(loss)
            images += len(y)
            if number % _CHECK_EVERY == 0:
                _check_finite(losses[-_CHECK_EVERY:], first + number + 1)
                rate = images / (time.perf_counter() - start)
                bar.update(task, completed=number + 1, note=f"loss {float(loss):.3f}, {rate:,.0f} images/s")
        bar.update(task, completed=len(losses), total=len(losses))
    if not losses:
        raise ValueError("batches must hold at least one batch; got none.")
    _check_finite(losses[-_CHECK_EVERY:], first + len(losses))
    return state, np.asarray(jax.device_get(losses), np.float32)


def _check_finite(losses: list[Any], last: int) -> None:
    values = np.asarray(jax.device_get(losses))
    if not np.all(np.isfinite(values)):
        bad = last - len(values) + int(np.argmin(np.isfinite(values))) + 1
        raise FloatingPointError(f"the loss became {values[bad - last - 1]} at step {bad}; lower the learning rate.")


def _bar(shown: bool) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    return Progress(*columns, TimeRemainingColumn(), TextColumn("{task.fields[note]}"), disable=not shown)
