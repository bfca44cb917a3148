"""The state of an evaluation, in memory and on disk, where every change is atomic.

A journal is a folder: `journal.json` says everything explicitly and names the array files that count; a file that it
does not name is left over from a run that was killed.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from spartax.attacks.trust import Trust

NAME, CLEAN = "journal.json", "clean.npz"


@dataclasses.dataclass
class Ledger:
    """How far an evaluation has come; changed in place.

    Attributes:
      logits: clean logits, float32 [N, K].
      x_adv: as in the result, [N, ...].
      robust: bool [N].
      broken_by: position of the attack that broke an example, int [N]; -1 for none, -2 for the clean image.
      rank, iteration: as in the result, int [N].
      attack: position of the attack now running.
      batch: the next batch of it.
      accuracy_after, seconds, passes: as in the result.
      warnings: as in the result.
      trust: as in the result.
      files: the array files that hold the adversarial images.
    """

    logits: np.ndarray
    x_adv: np.ndarray
    robust: np.ndarray
    broken_by: np.ndarray
    rank: np.ndarray
    iteration: np.ndarray
    attack: int = 0
    batch: int = 0
    accuracy_after: dict[str, float] = dataclasses.field(default_factory=dict)
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    passes: dict[str, list[int]] = dataclasses.field(default_factory=dict)
    warnings: list[str] = dataclasses.field(default_factory=list)
    trust: Trust | None = None
    files: list[str] = dataclasses.field(default_factory=list)

    def attacked(self) -> np.ndarray:
        """The examples that the attack now running works on: what was robust before it."""
        return np.flatnonzero(self.robust | (self.broken_by == self.attack))


def fresh(x: np.ndarray, y: np.ndarray, logits: np.ndarray) -> Ledger:
    """The ledger after the clean pass."""
    right = np.argmax(logits, axis=1) == y
    none = np.full(len(y), -1)
    return Ledger(logits, np.array(x), right, np.where(right, -1, -2), none.copy(), none.copy())


def fingerprint(settings: dict[str, Any], **arrays: np.ndarray) -> dict[str, Any]:
    """What must be equal for a journal to be continued: settings, and a hash of every array."""
    hashed = {name: hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest() for name, array in arrays.items()}
    return json.loads(json.dumps({"settings": settings, **hashed}))


def write(path: pathlib.Path, save: Callable[[Any], None]) -> None:
    """`save(open file)` so that after a crash the file is the old one or the new one, and never half of it."""
    temporary = path.with_suffix(path.suffix + ".writing")
    with open(temporary, "wb") as file:
        save(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def commit(folder: pathlib.Path | None, print_of: dict[str, Any], ledger: Ledger, rows: np.ndarray) -> None:
    """Make the state durable; `rows` are the examples broken since the last commit."""
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / NAME).exists():
        write(folder / CLEAN, lambda file: np.savez(file, logits=ledger.logits))
    if len(rows):
        name = f"adversarial-{len(ledger.files):06d}.npz"
        write(folder / name, lambda file: np.savez(file, rows=rows, images=ledger.x_adv[rows]))
        ledger.files.append(name)
    kept = {field.name: getattr(ledger, field.name) for field in dataclasses.fields(ledger)}
    del kept["logits"], kept["x_adv"]
    kept["trust"] = ledger.trust and ledger.trust._asdict()
    entry = {"fingerprint": print_of} | {n: v.tolist() if isinstance(v, np.ndarray) else v for n, v in kept.items()}
    write(folder / NAME, lambda file: file.write(json.dumps(entry).encode()))


def load(folder: pathlib.Path | None, print_of: dict[str, Any], x: np.ndarray) -> Ledger | None:
    """The state that was committed last, or None where there is none.

    Raises:
      ValueError: the journal belongs to an evaluation with other settings, images, labels or key.
    """
    if folder is None or not (folder / NAME).exists():
        return None
    entry = json.loads((folder / NAME).read_text())
    different = [name for name, value in print_of.items() if entry["fingerprint"].get(name) != value]
    if different:
        raise ValueError(
            f"state {str(folder)!r} belongs to another evaluation: {', '.join(different)} differ. Name another folder, "
            "or remove it to start again."
        )
    del entry["fingerprint"]
    arrays: dict[str, Any] = {name: np.array(entry.pop(name)) for name in ("robust", "broken_by", "rank", "iteration")}
    if entry["trust"] is not None:
        entry["trust"]["warnings"] = tuple(entry["trust"]["warnings"])
        entry["trust"] = Trust(**entry["trust"])
    x_adv = np.array(x)
    for name in entry["files"]:
        with np.load(folder / name) as saved:
            x_adv[saved["rows"]] = saved["images"]
    with np.load(folder / CLEAN) as saved:
        return Ledger(logits=saved["logits"], x_adv=x_adv, **arrays, **entry)
