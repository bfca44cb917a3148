"""What a run tells as it goes: a progress bar, and records in its logs."""

import dataclasses
import time
import warnings
from collections.abc import Mapping
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


def progress_bar(shown: bool) -> Progress:
    """Steps done and of how many, time left, and a note."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    return Progress(*columns, TimeRemainingColumn(), TextColumn("{task.fields[note]}"), disable=not shown)
