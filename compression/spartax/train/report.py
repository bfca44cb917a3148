"""What a run tells as it goes: a progress bar, and records in its logs."""

import contextlib
import dataclasses
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from spartax.train.logs import Log

EVERY = 10  # steps between two looks at the loss: looking waits for the device


@dataclasses.dataclass
class Report:
    """What a run tells as it goes.

    Attributes:
      bar, task: the progress bar.
      logs: where metrics are written; one whose disk is full is left.
      start: when the run began, in seconds.
      images: seen since.
    """

    bar: Progress
    task: Any
    logs: list[Log]
    start: float = dataclasses.field(default_factory=time.perf_counter)
    images: int = 0

    def __call__(self, first: int, losses: list[Any], numbers: Mapping[str, Any] | None) -> None:
        """Mean loss of the last ten steps, images per second, and numbers of the last step that the loss gave.

        All but the rate do not depend on interruptions.
        """
        window = min((first + len(losses) - 1) % EVERY + 1, len(losses))
        losses[-window:] = jax.device_get(losses[-window:])  # a list of device arrays would grow for ever
        loss, rate = float(np.mean(losses[-window:])), self.images / (time.perf_counter() - self.start)
        self.bar.update(self.task, completed=len(losses), note=f"loss {loss:.3f}, {rate:,.0f} images/s")
        more = {name: float(value) for name, value in (numbers or {}).items()}
        self.tell(first + len(losses), {"loss": loss, "images_per_second": rate, **more})

    def tell(self, step: int, values: Mapping[str, float]) -> None:
        """A record in every log."""
        for log in tuple(self.logs):
            try:
                log.write(step, values)
            except OSError as error:
                self.logs.remove(log)
                warnings.warn(f"{log.name} ends at step {step}, training goes on without it: {error}", stacklevel=3)


@contextlib.contextmanager
def reporting(logs: Iterable[Log], begun: int, name: str, total: int | None, shown: bool) -> Iterator[Report]:
    """A report to these logs and to a bar with time left, in the first of several processes; in the others to nobody.

    Args:
      logs: where metrics are written.
      begun: steps done before.
      name: shown beside the bar.
      total: steps of the run, where that is known.
      shown: whether there is a bar.
    """
    leads = jax.process_index() == 0
    own = list(logs) if leads else []
    for log in own:
        log.begin(begun)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    more = (TimeRemainingColumn(), TextColumn("{task.fields[note]}"))
    with Progress(*columns, *more, disable=not (shown and leads)) as bar:
        yield Report(bar, bar.add_task(name, total=total, note=""), own)
