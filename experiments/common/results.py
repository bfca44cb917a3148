"""A folder of results: one file of lines, and locks that keep two processes from measuring the same row."""

import contextlib
import hashlib
import json
import pathlib
import tempfile
from collections.abc import Iterator

from experiments.common import configs
from spartax import measure

LINES = "results.jsonl"
UNFINISHED = "unfinished"  # folder of the checkpoints of what is not finished; whatever is not gone on with may go
HELD = ".held"  # folder of locks
APPENDING = "append"  # the lock that whoever adds a line holds


def usable(folder: pathlib.Path) -> None:
    """Make the folder and try to write and to lock in it, before hours of work and not after.

    Raises:
      ValueError: it cannot be made, written to or locked, or a line of its results has other fields.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x" * 4096)
    except OSError as error:
        raise ValueError(
            f"--config.out={folder} cannot be written to ({error.strerror}); nothing was started"
        ) from error
    try:
        with locked(folder, APPENDING):
            pass
    except OSError as error:
        raise ValueError(
            f"--config.out={folder} is on a file system without locks ({error.strerror}); see docs/slurm.md"
        ) from error
    finished(folder)


def finished(folder: pathlib.Path) -> dict[str, measure.Record]:
    """The rows that are there, by identity. A half-written line is no row."""
    lines = folder / LINES
    records = measure.read(lines) if lines.exists() else []
    return {configs.identity(r.method, r.options, r.seed): r for r in records}


def keep(folder: pathlib.Path, record: measure.Record) -> None:
    """Append the row; where that fails, as on a full disk, it is put elsewhere and the place is said.

    One process at a time: file systems that nodes share find the end of a file and write there in two steps.

    Raises:
      ValueError: it could not be appended.
    """
    try:
        with locked(folder, APPENDING, wait=True):
            measure.append(folder / LINES, record)
    except OSError as error:
        text = json.dumps(record._asdict())
        with contextlib.suppress(OSError), tempfile.NamedTemporaryFile("w", suffix=".jsonl", delete=False) as file:
            file.write(text + "\n")
            file.flush()
            text = f"it is kept in {file.name}"
        raise ValueError(
            f"the row was measured, but {folder / LINES} took no line ({error.strerror}); {text}"
        ) from error


@contextlib.contextmanager
def locked(folder: pathlib.Path, what: str, *, wait: bool = False) -> Iterator[bool]:
    """Hold `what` in this folder, for as long as this process lives at most; gives whether it was free.

    Each lock is an empty file of its own, held by `flock`: a process may hold several, and giving one back leaves the
    others alone. docs/slurm.md says which file systems of clusters keep such locks.
    """
    import fcntl  # not on Windows

    place = folder / HELD
    place.mkdir(parents=True, exist_ok=True)
    with (place / hashlib.sha256(what.encode()).hexdigest()[:12]).open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except (BlockingIOError, PermissionError):
            yield False
            return
        yield True
