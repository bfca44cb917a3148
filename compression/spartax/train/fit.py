"""The training loop."""

import dataclasses
import itertools
import time
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from spartax import sharding
from spartax.records import Array
from spartax.train.checkpoints import Checkpoints, fingerprint, resume, save
from spartax.train.logs import Log
from spartax.train.refresh import Refresh
from spartax.train.step import State, Step
from spartax.train.validation import Validation, looked, over, prepared

_REFRESH_KEYS = 2**31  # keys of refreshes begin where those of steps end
_CHECK_EVERY = 10  # steps between two looks at the loss: looking waits for the device


class NotFiniteError(FloatingPointError):
    """Training broke: a loss, a gradient or new weights became NaN or infinite.

    Attributes:
      state: the last good one, before the step that broke; its `step` counts the good ones.
      losses: of all steps up to the one that broke, float32.
    """

    def __init__(self, state: State, losses: np.ndarray):
        number, loss = int(state.step) + 1, losses[-1]
        what = f"a gradient or a weight stopped being finite (the loss was {loss:g})"
        broke = what if np.isfinite(loss) else f"the loss became {loss}"
        super().__init__(f"{broke} at step {number}; lower the learning rate. The state before it is in `.state`.")
        self.state, self.losses = state, losses


def fit(
    step: Step,
    state: State,
    batches: Iterable[tuple[Any, ...]],
    key: Array,
    *,
    mesh: Mesh | None = None,
    refresh: Refresh | None = None,
    validate: Validation | None = None,
    keep: Checkpoints | None = None,
    logs: Sequence[Log] = (),
    total: int | None = None,
    name: str = "train",
    progress: bool = True,
) -> tuple[State, np.ndarray]:
    """Run `step` over `batches`, with a progress bar.

    Step number n uses `fold_in(key, n)`, counted by the state, so that a continued run draws what one long run draws.
    Learning rates are those of the optimizer: `optax.cosine_decay_schedule`, `optax.linear_onecycle_schedule` (cyclic),
    `optax.piecewise_constant_schedule`, under `train.warm_up`.

    Args:
      step: from `make_step`.
      state: from `init_state`, or of an earlier `fit`; its memory is reused.
      batches: `(x [B, ...], y [B], ...)`, as `data.batches` gives. A run that goes on from a checkpoint skips those it
        has seen: at no cost in a sequence, by drawing them from other iterables.
      key: PRNG key.
      mesh: from `sharding.mesh`; every batch is split over its rows. Place the state on it before
        (`sharding.replicate`, `sharding.shard_params`).
      refresh: from `train.make_refresh`: masks follow the schedule of a method; where a step is due for it, they are
        refreshed before that step, on its batch.
      validate: from `train.validation`: keeps the best weights in `state.best`, and may end training early.
      keep: from `train.checkpoints`: the same call, after an interruption, goes on from the last checkpoint.
      logs: `train.json_lines(path)`, `train.tensorboard(folder)`: mean loss of ten steps, images per second, score.
      total: number of batches, for the time left; known for sequences.
      name: shown beside the bar.
      progress: whether to show it.

    Returns:
      The last state, and the loss of every step, float32 [steps]; with `keep`, those of before an interruption too.

    Raises:
      NotFiniteError: a loss, gradient or weight is NaN or infinite; the error holds the last good state.
      ValueError: there was no batch, or the mesh does not divide one; see also `train.checkpoints` and
        `train.validation`.
    """
    first, losses, print_of = int(state.step), [], {}
    state = state if validate is None else prepared(validate, state)
    if keep is not None:
        print_of = fingerprint(keep, state, key)
        state, losses = resume(keep, print_of, state)
    saved = len(losses)
    for log in logs:
        log.begin(first + saved)
    with _bar(progress) as bar:
        report = _Report(bar, bar.add_task(name, total=total or _length(batches), note=""), logs)
        for x, y, *_ in _rest(batches, saved):
            if over(validate, state):
                break
            x, y = (x, y) if mesh is None else sharding.shard_batch((x, y), mesh)
            number = first + len(losses)
            if refresh is not None and refresh.due(number):
                state = refresh.update(state, jax.random.fold_in(key, _REFRESH_KEYS + number), x, y)
            state, loss = step(state, jax.random.fold_in(key, number), x, y)
            losses.append(loss)
            report.images += len(y)
            number += 1
            if number % _CHECK_EVERY == 0:
                _check_finite(state, first, losses)
                report(first, losses)
            if validate is not None and number % validate.every == 0:
                _check_finite(state, first, losses)
                state, score = looked(validate, state)
                report.tell(number, {"score": score})
            if keep is not None and number % keep.every == 0:
                _check_finite(state, first, losses)
                save(keep, print_of, state, losses)
                saved = len(losses)
        if not losses:
            raise ValueError("batches must hold at least one batch; got none.")
        _check_finite(state, first, losses)
        if report.images and (first + len(losses)) % _CHECK_EVERY:
            report(first, losses)
    if keep is not None and saved < len(losses):
        save(keep, print_of, state, losses)
    return state, np.asarray(jax.device_get(losses), np.float32)


@dataclasses.dataclass
class _Report:
    """What a run tells as it goes.

    Attributes:
      bar, task: the progress bar.
      logs: where metrics are written.
      start: when the run began, in seconds.
      images: seen since.
    """

    bar: Progress
    task: Any
    logs: Sequence[Log]
    start: float = dataclasses.field(default_factory=time.perf_counter)
    images: int = 0

    def __call__(self, first: int, losses: list[Any]) -> None:
        """Mean loss of the last ten steps, which does not depend on interruptions, and images per second."""
        window = min((first + len(losses) - 1) % _CHECK_EVERY + 1, len(losses))
        losses[-window:] = jax.device_get(losses[-window:])  # a list of device arrays would grow for ever
        loss, rate = float(np.mean(losses[-window:])), self.images / (time.perf_counter() - self.start)
        self.bar.update(self.task, completed=len(losses), note=f"loss {loss:.3f}, {rate:,.0f} images/s")
        self.tell(first + len(losses), {"loss": loss, "images_per_second": rate})

    def tell(self, step: int, values: dict[str, float]) -> None:
        for log in self.logs:
            log.write(step, values)


def _length(batches: Any) -> int | None:
    return len(batches) if hasattr(batches, "__len__") else None


def _rest(batches: Any, done: int) -> Iterable[tuple[Any, ...]]:
    """The batches after the first `done`."""
    if hasattr(batches, "__len__") and hasattr(batches, "__getitem__"):
        return (batches[number] for number in range(done, len(batches)))
    return itertools.islice(batches, done, None)


def _check_finite(state: State, first: int, losses: list[Any]) -> None:
    if not state.finite:
        good = int(state.step) - first
        values = np.asarray(jax.device_get(losses[: good + 1]), np.float32)
        raise NotFiniteError(state._replace(finite=jnp.ones_like(state.finite)), values)


def _bar(shown: bool) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    return Progress(*columns, TimeRemainingColumn(), TextColumn("{task.fields[note]}"), disable=not shown)
