"""Metrics of a training run, on disk as it goes."""

import json
import math
import os
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from spartax.train import events

_OWN = ("step", "loss", "images_per_second")  # what the loop itself writes


class Log(NamedTuple):
    """Where `train.fit(..., logs=)` writes.

    Attributes:
      begin: `(step)`: a run begins, or goes on, after this step; what was written of later steps is void.
      write: `(step, {name: number})`.
      name: what it is, for messages.
    """

    begin: Callable[[int], None]
    write: Callable[[int, Mapping[str, float]], None]
    name: str = "a log"


def check_names(what: str, numbers: Mapping[str, Any]) -> None:
    """More numbers for the logs must not have the names of those that the loop writes.

    Args:
      what: that gave them, for the message.
      numbers: by name.

    Raises:
      ValueError: a name that is taken.
    """
    for name in _OWN:
        if name in numbers:
            raise ValueError(f"{what} must not use the names {', '.join(_OWN)} of the training loop; got {name!r}.")


def json_lines(path: str | os.PathLike) -> Log:
    """One line `{"step": 120, "loss": 0.31, ...}` per record, in a file for one run.

    A number that is NaN or infinite is written as null. A run that goes on after an interruption first removes the
    lines that it will write again, and a half-written last one.

    Args:
      path: the file; its folder is made.
    """
    file = pathlib.Path(path)

    def begin(step: int) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = file.read_bytes().splitlines(keepends=True) if file.exists() else []
        kept = [line for line in lines if line.endswith(b"\n") and json.loads(line)["step"] <= step]
        if len(kept) < len(lines):
            temporary = file.with_name(file.name + ".writing")
            temporary.write_bytes(b"".join(kept))
            os.replace(temporary, file)

    def write(step: int, values: Mapping[str, float]) -> None:
        record = {name: value if math.isfinite(value) else None for name, value in values.items()}  # JSON has no NaN
        with file.open("a") as out:
            out.write(json.dumps({"step": step, **record}) + "\n")

    return Log(begin, write, f"the log {file}")


def tensorboard(folder: str | os.PathLike) -> Log:
    """Scalars for TensorBoard, one event file each time a run begins or goes on; TensorBoard hides steps that are void.

    Args:
      folder: what `tensorboard --logdir` is given; it is made.
    """
    root = pathlib.Path(folder)
    files: list[pathlib.Path] = []

    def begin(step: int) -> None:
        root.mkdir(parents=True, exist_ok=True)
        now = time.time_ns()
        files.append(root / f"events.out.tfevents.{now // 10**9}.{now % 10**9:09d}.{os.getpid()}")
        files[-1].write_bytes(events.version(now / 1e9) + events.start(now / 1e9, step + 1))

    def write(step: int, values: Mapping[str, float]) -> None:
        with files[-1].open("ab") as out:
            out.write(events.scalars(time.time(), step, values))

    return Log(begin, write, f"the log {root}")
