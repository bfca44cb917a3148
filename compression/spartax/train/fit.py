"""The training loop."""

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from spartax import checks, sharding
from spartax.records import Array
from spartax.train.checkpoints import Checkpoints, fingerprint, resume, save
from spartax.train.logs import Log
from spartax.train.network import is_attacking
from spartax.train.refresh import Refresh
from spartax.train.report import EVERY, Report, reporting
from spartax.train.step import State, Step
from spartax.train.validation import Validation, looked, over, prepared

_REFRESH_KEYS = 2**31  # keys of refreshes begin where those of steps end


class NotFiniteError(FloatingPointError):
    """Training broke: a loss, gradient, new weight, state of the optimizer or other variable became NaN or infinite.

    Attributes:
      state: the last good one, before the step that broke; its `step` counts the good ones.
      losses: of all steps up to the one that broke, float32.
    """

    def __init__(self, state: State, losses: np.ndarray):
        number, loss = int(state.step) + 1, losses[-1]
        what = f"a gradient, a weight, the optimizer or a statistic stopped being finite (the loss was {loss:g})"
        broke = what if np.isfinite(loss) else f"the loss became {loss}"
        data = "look for labels beyond the classes of the network and for odd values in the images"
        cure = f"{data}, or lower the learning rate" if number == 1 else f"lower the learning rate, or {data}"
        super().__init__(f"{broke} at step {number}; {cure}. The state before it is in `.state`.")
        self.state, self.losses = state, losses


class BadBatchError(ValueError):
    """A batch cannot be trained on.

    Attributes:
      state: the one before it.
      losses: of all steps before it, float32.
    """

    def __init__(self, what: str, state: State, losses: np.ndarray):
        super().__init__(what)
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
        has seen: at no cost in a sequence, by drawing them from other iterables. NumPy arrays are checked as they
        come, those of devices in the first batch only.
      key: PRNG key.
      mesh: from `sharding.mesh`; every batch is split over its rows. Place the state on it before
        (`sharding.replicate`, `sharding.shard_params`).
      refresh: from `train.make_refresh`: masks follow the schedule of a method; where a step is due for it, they are
        refreshed before that step, on its batch.
      validate: from `train.validation`: keeps the best weights in `state.best`, and may end training early.
      keep: from `train.checkpoints`: the same call, after an interruption, goes on from the last checkpoint.
      logs: `train.json_lines(path)`, `train.tensorboard(folder)`: mean loss of ten steps, images per second, what the
        loss tells of the last of them (`train.Loss`), score. The first of several processes writes them.
      total: number of batches, for the time left; known for sequences.
      name: shown beside the bar.
      progress: whether to show it, in the first of several processes.

    Returns:
      The last state, and the loss of every step, float32 [steps]; with `keep`, those of before an interruption too.

    Raises:
      NotFiniteError: a loss, gradient, weight, state of the optimizer or other variable is NaN or infinite; it holds
        the last good state.
      BadBatchError: a ValueError that holds the state before the batch: no example, labels that are no integers of 0 or
        more, or not as many as images, values that are not finite, images outside [0, 1] under a loss that attacks
        them, a number of examples that the mesh does not divide.
      ValueError: there was no batch, or fewer than the checkpoint has seen; see also `train.checkpoints` and
        `train.validation`. What a score, a refresh or a checkpoint raises on the way, such as the OSError of a full
        disk, gets the attributes `state` and `losses` too.
    """
    first, losses, print_of, numbers = int(state.step), [], {}, None
    state = state if validate is None else prepared(validate, state)
    if keep is not None:
        print_of = fingerprint(keep, state, key)
        state, losses = resume(keep, print_of, state)
    saved = start = len(losses)
    with reporting(logs, first + start, name, total or _length(batches), progress) as report:
        for x, y, *_ in _rest(batches, start):
            if over(validate, state):
                break
            number = first + len(losses)
            # not after the step, so that the checkpoint of the last one has the look at the end
            if keep is not None and saved < len(losses) and number % keep.every == 0:
                saved = _save(keep, print_of, state, first, losses)
            try:
                x, y = _taken(x, y, f"batches[{len(losses)}]", mesh, len(losses) == start, is_attacking(step))
            except ValueError as error:
                raise _bad_batch(error, state, first, losses) from error
            if refresh is not None and refresh.due(number):
                with _holding(state, losses):
                    state = refresh.update(state, jax.random.fold_in(key, _REFRESH_KEYS + number), x, y)
            state, loss = step(state, jax.random.fold_in(key, number), x, y)
            state, numbers = state._replace(log=None), state.log
            losses.append(loss)
            number, report.images = number + 1, report.images + len(y)
            if number % EVERY == 0:
                _check_finite(state, first, losses)
                report(first, losses, numbers)
            if validate is not None and number % validate.every == 0:
                state = _look(validate, state, first, losses, report)
        if not losses:
            raise ValueError("batches must hold at least one batch; got none.")
        _check_finite(state, first, losses)
        if report.images and (first + len(losses)) % EVERY:
            report(first, losses, numbers)
        if validate is not None and report.images and (first + len(losses)) % validate.every:
            state = _look(validate, state, first, losses, report)
    if keep is not None and saved < len(losses):
        _save(keep, print_of, state, first, losses)
    return state, _host(losses)


def _look(validate: Validation, state: State, first: int, losses: list[Any], report: Report) -> State:
    """The state with its best weights after a look, which the logs are told."""
    _check_finite(state, first, losses)
    with _holding(state, losses):
        state, scores = looked(validate, state)
    report.tell(first + len(losses), scores)
    return state


def _save(keep: Checkpoints, print_of: dict[str, Any], state: State, first: int, losses: list[Any]) -> int:
    """Save a good state; how many steps are saved."""
    _check_finite(state, first, losses)
    with _holding(state, losses):
        save(keep, print_of, state, losses)
    return len(losses)


@contextlib.contextmanager
def _holding(state: State, losses: list[Any]) -> Iterator[None]:
    """Errors get the state from before them: the memory of the one that was given to `fit` is gone."""
    try:
        yield
    except Exception as error:
        vars(error).update(state=state, losses=_host(losses))
        raise


def _length(batches: Any) -> int | None:
    return len(batches) if hasattr(batches, "__len__") else None


def _host(losses: list[Any]) -> np.ndarray:
    return np.asarray(jax.device_get(losses), np.float32)


def _rest(batches: Any, done: int) -> Iterable[tuple[Any, ...]]:
    """The batches after the first `done`, which there must be."""
    if hasattr(batches, "__len__") and hasattr(batches, "__getitem__"):
        there, rest = len(batches), (batches[number] for number in range(done, len(batches)))
    else:
        rest = iter(batches)
        there = sum(1 for _ in itertools.islice(rest, done))
    if there < done:
        raise ValueError(
            f"batches must be those of the whole run, of which the checkpoint has seen {done}; got {there}. Name "
            "another folder to start again."
        )
    return rest


def _taken(x: Any, y: Any, name: str, mesh: Mesh | None, is_first: bool, is_attacked: bool) -> tuple[Any, Any]:
    """The batch on its devices, after its checks; of the first batch arrays of devices are fetched for them."""
    seen = jax.tree.map(np.asarray, (x, y)) if is_first and _is_here((x, y)) else (x, y)
    checks.batch(name, *seen, attacked=is_attacked)
    return (x, y) if mesh is None else sharding.shard_batch((x, y), mesh)


def _bad_batch(error: ValueError, state: State, first: int, losses: list[Any]) -> BadBatchError:
    """Unless training broke before."""
    _check_finite(state, first, losses)
    return BadBatchError(str(error), state, _host(losses))


def _is_here(batch: Any) -> bool:
    return all(x.is_fully_addressable for x in jax.tree.leaves(batch) if isinstance(x, jax.Array))


def _check_finite(state: State, first: int, losses: list[Any]) -> None:
    if not state.finite:
        good = int(state.step) - first
        raise NotFiniteError(state._replace(finite=jnp.ones_like(state.finite)), _host(losses[: good + 1]))
