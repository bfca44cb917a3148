"""Save and restore a params tree at its compressed size, without a template.

A checkpoint is a folder with `spec.json`, which says what every node of the tree is, and one orbax folder of arrays.
Arrays under 64 KiB are joined into one array of bytes, because orbax spends half a kilobyte on each array it keeps.
Writing the spec is the commit: it is renamed into place when the arrays it names are on disk, so a killed save changes
nothing.
"""

import contextlib
import json
import os
import pathlib
import secrets
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spartax import trees
from spartax.records import Params

FORMAT = 1
OWN_BYTES = 2**16  # an array of at least this size is stored by itself
_SPEC = {"format", "arrays", "bytes", "tree", "extra"}


def save(path: str | os.PathLike, params: Params, *, extra: Mapping[str, Any] | None = None) -> None:
    """Write a tree of arrays and compressed leaves as they stand; call `pack` first for the smallest size.

    With several processes the first one calls it, alone, with arrays that it can read whole (`sharding.replicate`).

    Args:
      path: the folder; a checkpoint that is already there is replaced once the new one is complete.
      params: dicts, lists, tuples, None, arrays, numbers, strings and compressed leaves, nested in any way. Other
        mappings (`FrozenDict`, an NNX `State`) come back as dicts, NNX variables as their arrays.
      extra: notes to keep with it, JSON values only; the function `extra` reads them.

    Raises:
      ValueError: a node that could not be restored without a template, `path` holds something else, or this is not
        the first of several processes.
      OSError: it could not be written (a full disk); a checkpoint that was there before is unchanged.
    """
    if jax.process_index():
        raise ValueError(f"save is for process 0, which writes for all; this is process {jax.process_index()}.")
    folder = _folder(path)
    inside = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    if folder.is_file() or any(not name.startswith(("arrays-", "spec.json")) for name in inside):
        raise ValueError(f"path {folder} holds something that is not a checkpoint; choose another folder.")
    stored: dict[str, Any] = {}
    small = bytearray()
    spec = {"format": FORMAT, "arrays": f"arrays-{secrets.token_hex(4)}", "extra": dict(extra or {})}
    spec["tree"] = trees.encode(params, "params", lambda where, x: _kept(x, stored, small))
    spec["bytes"] = len(small)
    text, temporary = to_json(spec), folder / "spec.json.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_arrays(folder / spec["arrays"], stored | ({"small": np.frombuffer(small, np.uint8)} if small else {}))
        _write(temporary, text)
        os.replace(temporary, folder / "spec.json")
    except Exception as error:
        for left in folder.glob(spec["arrays"] + "*"):  # half a checkpoint only fills the disk
            shutil.rmtree(left, ignore_errors=True)
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise OSError(f"{folder} could not be written, what it held before is unchanged: {error}") from error
    flush(folder)  # not above: from here on the spec names the new arrays
    for old in folder.glob("arrays-*"):
        if not old.name.startswith(spec["arrays"]):
            shutil.rmtree(old, ignore_errors=True)


def restore(path: str | os.PathLike) -> Params:
    """The tree that `save` wrote: same containers, leaf classes, dtypes and bits, on the default device.

    Raises:
      ValueError: there is no checkpoint, or it holds classes, fields or a format that this version does not know.

    Example:
      >>> import tempfile
      >>> import jax.numpy as jnp
      >>> import spartax as sx
      >>> small = sx.pack({"kernel": sx.Masked(jnp.arange(8.0), jnp.arange(8) == 7)})
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     sx.save(folder + "/small", small)
      ...     again = sx.restore(folder + "/small")
      >>> type(again["kernel"]).__name__, sx.nbytes(again) == sx.nbytes(small)
      ('Bitmask', True)
    """
    folder, spec = _read_spec(path)
    wanted = {"small": np.empty(spec["bytes"], np.uint8)} if spec["bytes"] else {}
    _shapes(spec["tree"], wanted)
    arrays = _read_arrays(folder / spec["arrays"], wanted)
    small = arrays.pop("small", np.empty(0, np.uint8)).tobytes()
    return trees.decode(spec["tree"], lambda node: trees.value(node, _bytes_of(node, arrays, small)))


def extra(path: str | os.PathLike) -> dict[str, Any]:
    """The notes that were saved with a checkpoint."""
    return _read_spec(path)[1]["extra"]


def size_on_disk(path: str | os.PathLike) -> int:
    """Bytes of all files of a checkpoint (or of any file or folder)."""
    root = _folder(path)
    files = [root] if root.is_file() else [file for file in root.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def _folder(path: str | os.PathLike) -> pathlib.Path:
    return pathlib.Path(path).expanduser().resolve()


def _kept(x: Any, stored: dict[str, Any], small: bytearray) -> str | int:
    """Keep an array by itself, or byte by byte with the small ones; where it is."""
    plain = x.dtype == jnp.bfloat16 or x.dtype.kind in "biufc"
    if plain and x.size * x.dtype.itemsize >= OWN_BYTES:
        stored[str(len(stored))] = x
        return str(len(stored) - 1)
    at = len(small)
    small += np.asarray(x).tobytes()
    return at


def _bytes_of(node: trees.Node, arrays: Mapping[str, Any], small: bytes) -> Any:
    dtype, shape, at = trees.dtype(node), tuple(node["shape"]), node["at"]
    if isinstance(at, str):
        return arrays[at]
    return np.frombuffer(small, dtype, int(np.prod(shape)), at).reshape(shape)


def _shapes(node: trees.Node, wanted: dict[str, Any]) -> None:
    """Collect shape and dtype of every array that is stored by itself, as orbax wants them."""
    for child in trees.children(node):
        _shapes(child, wanted)
    if isinstance(node, dict) and isinstance(node.get("at"), str):
        shape, dtype = tuple(node["shape"]), trees.dtype(node)
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        device = jax.ShapeDtypeStruct(shape, dtype, sharding=here)
        wanted[node["at"]] = device if "array" in node else np.empty(shape, dtype)


def to_json(spec: Mapping[str, Any]) -> str:
    """A spec as JSON.

    Raises:
      ValueError: notes that are no JSON values.
    """
    try:
        return json.dumps(spec, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise ValueError(f"extra must hold JSON values only: {error}.") from error


def _read_spec(path: str | os.PathLike) -> tuple[pathlib.Path, dict[str, Any]]:
    folder = _folder(path)
    if not (folder / "spec.json").is_file():
        raise ValueError(f"path {folder} holds no checkpoint (no spec.json).")
    try:
        spec = json.loads((folder / "spec.json").read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{folder / 'spec.json'} is damaged: {error}.") from error
    if not isinstance(spec, dict) or spec.get("format") != FORMAT:
        found = spec.get("format") if isinstance(spec, dict) else spec
        raise ValueError(f"{folder} has checkpoint format {found!r}; this version reads format {FORMAT}.")
    if set(spec) != _SPEC:
        raise ValueError(f"{folder} has unknown or missing fields: {sorted(set(spec) ^ _SPEC)}.")
    return folder, spec


def _write_arrays(folder: pathlib.Path, arrays: dict[str, Any]) -> None:
    """All arrays by orbax, flushed to the disk."""
    if not arrays:
        return
    if jax.process_count() > 1:
        arrays = jax.device_get(arrays)  # of several processes orbax takes NumPy, or arrays that all of them share
    with _quiet(), _checkpointer() as checkpointer:
        checkpointer.save(folder, arrays)
    for file in folder.rglob("*"):
        flush(file)


def _read_arrays(folder: pathlib.Path, wanted: dict[str, Any]) -> dict[str, Any]:
    if not wanted:
        return {}
    with _checkpointer() as checkpointer:
        return checkpointer.restore(folder, wanted)


def _checkpointer() -> Any:
    """Orbax for this process alone: it waits for no other."""
    import orbax.checkpoint as ocp  # takes seconds to import

    this = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=this, active_processes={this}, barrier_sync_key_prefix=f"process_{this}"
    )
    return ocp.StandardCheckpointer(multiprocessing_options=alone)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Orbax also logs what it raises, with the stack of each of its threads: two hundred lines for a full disk."""
    from absl import logging

    logger = logging.get_absl_logger()
    level = logger.level
    logger.setLevel("CRITICAL")
    try:
        yield
    finally:
        logger.setLevel(level)


def _write(file: pathlib.Path, text: str) -> None:
    """The file with this text, on the disk."""
    file.write_text(text)
    flush(file)


def commit(temporary: pathlib.Path, file: pathlib.Path) -> None:
    """Exchange a file for another; whoever reads meanwhile sees the old or the new one."""
    os.replace(temporary, file)
    flush(file.parent)


def flush(path: pathlib.Path) -> None:
    """Bring a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
