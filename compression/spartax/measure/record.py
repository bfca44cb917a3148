"""One run, one JSON line."""

import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import types
import typing
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax


class Record(NamedTuple):
    """All that is known about one measured network. Everything is plain JSON.

    Attributes:
      method: name of the compression, such as `"magnitude, global"`.
      options: its options.
      role: `"dense"` for the uncompressed network, `"baseline"` for random pruning and the like, else `"method"`.
      model: name of the network.
      data: name of the data set and split.
      seed: seed of the run.
      examples: number of images that accuracies are measured on.
      threat: `{"norm": ..., "eps": ..., "levels": ...}`, eps in pixel units of [0, 1]; the stored images have `levels`
        steps above black (255 for bytes).
      bytes_disk: bytes of the checkpoint as written, header included.
      bytes_packed: bytes of its arrays.
      sparsity: weight path -> fraction of zeros, for the weights that were compressed.
      macs: `{"dense": ..., "run": ..., "nonzero": ...}` for one example; see `measure.Macs`.
      clean: accuracy without attack, in [0, 1].
      robust: attack name -> accuracy after it.
      worst: accuracy after the worst attack of each example; None where no attack was run.
      broken_by: attack name -> number of examples it was the first to break.
      warnings: reasons to doubt the robust numbers.
      latency: `{"median", "low", "high"}` in seconds for a batch and the same of the dense network in the same run
        under `"dense"`, the batch size under `"batch"`; None when it was not measured.
      seconds: wall time of the run, of the process that finished it.
      versions: package -> version.
      device: kind of the device.
      commit: git commit of the code, or None.
      curve: the security curve: eps, as written in JSON, -> accuracy under attack at that radius; None when it was not
        measured.
      masking: how much robust accuracy the network's own gradients alone would have claimed beyond `worst`; see
        `measure.Robustness`. None when it was not measured.
    """

    method: str
    options: dict[str, Any]
    role: str
    model: str
    data: str
    seed: int
    examples: int
    threat: dict[str, Any]
    bytes_disk: int
    bytes_packed: int
    sparsity: dict[str, float]
    macs: dict[str, int]
    clean: float
    robust: dict[str, float]
    worst: float | None
    broken_by: dict[str, int]
    warnings: list[str]
    latency: dict[str, Any] | None
    seconds: float
    versions: dict[str, str]
    device: str
    commit: str | None
    curve: dict[str, float] | None = None
    masking: float | None = None


UNUSED = ("bytes_packed", "broken_by", "seconds", "versions", "commit")  # no report computes with them
INSIDE = {
    "macs": ("run", "nonzero"),
    "threat": ("norm", "eps", "levels"),
    "latency": ("median", "low", "high", "batch"),
}


def chosen(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that have a value: one that is None was left out, as in lines that are older than the option."""
    return {name: value for name, value in options.items() if value is not None}


def append(path: str | os.PathLike, record: Record) -> None:
    """Add one line to a file, in a single write that is on disk when this returns.

    Several processes may append to one file. A line that an earlier run left half-written is closed first.

    Raises:
      ValueError: the record holds something that is not JSON.
      OSError: the line could not be written whole, as on a full disk; what there is of it counts as half-written.
    """
    try:
        line = json.dumps(record._asdict(), allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise ValueError(f"record must hold finite JSON values only: {error}.") from error
    handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        size = os.fstat(handle).st_size
        torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
        rest = memoryview((b"\n" if torn else b"") + line.encode())
        while rest:  # a full disk takes a part, and only the next write says why
            rest = rest[os.write(handle, rest) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def read(path: str | os.PathLike, *, skip: bool = False) -> list[Record]:
    """All records of a file, in order. Lines that a killed run left half-written are skipped with a warning.

    Args:
      path: the file.
      skip: leave out, with one warning, lines that are no records, and those that no report can use, such as with null
        for `macs`.

    Raises:
      ValueError: without `skip`, a line with other fields than `Record` has (those with defaults may be missing).
    """
    lines = pathlib.Path(path).read_text().splitlines()
    records, foreign = [], []
    for number, line in enumerate(lines, 1):
        try:
            fields = json.loads(line)
        except json.JSONDecodeError:
            if line.strip():
                last = ", the last," if number == len(lines) else ""
                warnings.warn(f"{path}: line {number}{last} is half-written and was skipped.", stacklevel=2)
            continue
        differ = _differ(fields)
        if differ and not skip:
            raise ValueError(f"{path}: line {number} {differ}.")
        wrong = differ or (_unusable(fields) if skip else "")
        if wrong:
            foreign.append(f"line {number} {wrong}")
        else:
            records.append(Record(**fields))
    if foreign:
        more = f", as were {len(foreign) - 1} more" if len(foreign) > 1 else ""
        warnings.warn(f"{path}: {foreign[0]}; it was skipped{more}.", stacklevel=2)
    return records


def _differ(fields: Any) -> str:
    """Why the value of a line is no record, in words; empty where it is one."""
    names = set(fields if isinstance(fields, dict) else ())
    differ = names - set(Record._fields) | (set(Record._fields) - set(Record._field_defaults) - names)
    return f"has unknown or missing fields: {', '.join(sorted(differ))}" if differ else ""


def _unusable(fields: dict[str, Any]) -> str:
    """Why no report can use a record, in words; empty where one can."""
    for name in (name for name in fields if name not in UNUSED):
        value = fields[name]
        inside = INSIDE.get(name, ()) if isinstance(value, dict) else ()
        if not _fits(value, Record.__annotations__[name]) or any(key not in value for key in inside):
            return f"has {name} {json.dumps(value):.60}, which is not what measure.Record has there"
    return ""


def _fits(value: Any, hint: Any) -> bool:
    """Whether a JSON value is of an annotated type; JSON has one kind of number."""
    inside = typing.get_args(hint)
    if isinstance(hint, types.UnionType):
        return any(_fits(value, one) for one in inside)
    if hint in (int, float):
        return isinstance(value, (int, float))
    if typing.get_origin(hint) is dict:
        return isinstance(value, dict) and all(_fits(one, inside[1]) for one in value.values())
    if typing.get_origin(hint) is list:
        return isinstance(value, list) and all(_fits(one, inside[0]) for one in value)
    return hint is Any or isinstance(value, hint)


def environment() -> dict[str, Any]:
    """The fields `versions`, `device` and `commit` of a record made here and now."""
    packages = ("spartax", "jax", "jaxlib", "flax", "optax", "numpy")
    versions = {name: _version(name) for name in packages}
    device = jax.devices()[0]
    return {
        "versions": {"python": platform.python_version(), **versions},
        "device": f"{device.platform}: {device.device_kind} x{jax.device_count()}, {os.cpu_count()} host cores",
        "commit": _commit(),
    }


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _commit() -> str | None:
    """The commit of the checkout this file is tracked in, marked when tracked files differ from it."""
    here = pathlib.Path(__file__)
    try:
        _git(here, "ls-files", "--error-unmatch", here.name)
        return _git(here, "rev-parse", "HEAD") + ("+changes" if _git(here, "status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(file: pathlib.Path, *arguments: str) -> str:
    command = ("git", "-C", str(file.parent), *arguments)
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
