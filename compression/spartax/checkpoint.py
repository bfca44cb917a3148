"""Save and restore a params tree at its compressed size, without a template.

A checkpoint is a folder with `spec.json`, which says what every node of the tree is, and one orbax folder of arrays.
Arrays under 64 KiB are joined into one array of bytes, because orbax spends half a kilobyte on each array it keeps.
Writing the spec is the commit: it is renamed into place when the arrays it names are on disk, so a killed save changes
nothing.
"""

import dataclasses
import json
import os
import pathlib
import secrets
import shutil
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spartax import checks
from spartax.arrays import verbs
from spartax.records import Params

FORMAT = 1
OWN_BYTES = 2**16  # an array of at least this size is stored by itself
_SPEC = {"format", "arrays", "bytes", "tree", "extra"}
_NODES = ({"dict"}, {"list"}, {"tuple"}, {"leaf", "fields"}, {"array", "shape", "at"}, {"numpy", "shape", "at"})
_SCALARS = (type(None), bool, int, float, str)
_Node = Any  # a JSON scalar, or a dictionary with the fields of one of _NODES


def save(path: str | os.PathLike, params: Params, *, extra: Mapping[str, Any] | None = None) -> None:
    """Write a tree of arrays and compressed leaves as they stand; call `pack` first for the smallest size.

    Args:
      path: the folder; a checkpoint that is already there is replaced once the new one is complete.
      params: dicts, lists, tuples, None, arrays, numbers, strings and compressed leaves, nested in any way. Other
        mappings (`FrozenDict`, an NNX `State`) come back as dicts, NNX variables as their arrays.
      extra: notes to keep with it, JSON values only; the function `extra` reads them.

    Raises:
      ValueError: a node that could not be restored without a template, or `path` holds something else.
      OSError: it could not be written (a full disk); a checkpoint that was there before is unchanged.
    """
    folder = _folder(path)
    inside = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    if folder.is_file() or any(not name.startswith(("arrays-", "spec.json")) for name in inside):
        raise ValueError(f"path {folder} holds something that is not a checkpoint; choose another folder.")
    stored: dict[str, Any] = {}
    small = bytearray()
    spec = {"format": FORMAT, "arrays": f"arrays-{secrets.token_hex(4)}", "extra": dict(extra or {})}
    spec["tree"] = _encode(params, "params", stored, small)
    spec["bytes"] = len(small)
    text = _to_json(spec)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_arrays(folder / spec["arrays"], stored | ({"small": np.frombuffer(small, np.uint8)} if small else {}))
        temporary = _written(folder / "spec.json.tmp", text)
    except Exception as error:
        for left in folder.glob(spec["arrays"] + "*"):  # half a checkpoint only fills the disk
            shutil.rmtree(left, ignore_errors=True)
        raise OSError(f"{folder} could not be written, what it held before is unchanged: {error}") from error
    _commit(temporary, folder / "spec.json")
    for old in folder.glob("arrays-*"):
        if not old.name.startswith(spec["arrays"]):
            shutil.rmtree(old, ignore_errors=True)


def restore(path: str | os.PathLike) -> Params:
    """The tree that `save` wrote: same containers, leaf classes, dtypes and bits, on the default device.

    Raises:
      ValueError: there is no checkpoint, or it holds classes, fields or a format that this version does not know.
    """
    folder, spec = _read_spec(path)
    wanted = {"small": np.empty(spec["bytes"], np.uint8)} if spec["bytes"] else {}
    _shapes(spec["tree"], wanted)
    arrays = _read_arrays(folder / spec["arrays"], wanted)
    small = arrays.pop("small", np.empty(0, np.uint8)).tobytes()
    return _decode(spec["tree"], arrays, small)


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


def _encode(node: Any, where: str, stored: dict[str, Any], small: bytearray) -> _Node:
    """What `node` is, as JSON; its arrays go into `stored` or, byte by byte, into `small`."""
    if type(node) in _SCALARS:
        return node
    if verbs.is_leaf(node):
        fields = {f.name: getattr(node, f.name) for f in dataclasses.fields(node)}
        coded = {name: _encode(value, f"{where}.{name}", stored, small) for name, value in fields.items()}
        return {"leaf": type(node).__name__, "fields": coded}
    if isinstance(node, Mapping):
        if not all(isinstance(key, (str, int)) for key in node):
            raise ValueError(f"{where} has keys that are neither strings nor integers: {list(node)[:5]}.")
        return {"dict": [[key, _encode(value, f"{where}/{key}", stored, small)] for key, value in node.items()]}
    if type(node) in (list, tuple):
        return {type(node).__name__: [_encode(v, f"{where}/{i}", stored, small) for i, v in enumerate(node)]}
    if isinstance(node, (jax.Array, np.ndarray, np.generic)):
        return _encode_array(node, where, stored, small)
    return _encode(_only_value(node, where), where, stored, small)


def _encode_array(x: Any, where: str, stored: dict[str, Any], small: bytearray) -> _Node:
    if not checks.is_concrete(x):
        raise ValueError(f"{where} has no value yet: save cannot run under jit.")
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) or x.dtype.kind in "OSUMm":
        raise ValueError(f"{where} has dtype {x.dtype}, which cannot be saved; a key is saved as jax.random.key_data.")
    kind = "array" if isinstance(x, jax.Array) else "numpy"
    node: _Node = {kind: np.dtype(x.dtype).name, "shape": list(x.shape)}
    plain = x.dtype == jnp.bfloat16 or x.dtype.kind in "biufc"
    if plain and x.size * x.dtype.itemsize >= OWN_BYTES:
        node["at"] = str(len(stored))
        stored[node["at"]] = x
    else:
        node["at"] = len(small)
        small += np.asarray(x).tobytes()
    return node


def _only_value(node: Any, where: str) -> Any:
    """The array inside a box with a single child called value, such as an NNX variable."""
    children = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda x: x is not node)[0]
    names = [jax.tree_util.keystr(keys, simple=True) for keys, _ in children]
    if names not in (["value"], ["raw_value"]):
        raise ValueError(
            f"{where} is a {type(node).__name__}, which cannot be restored without a template; save dicts, lists, "
            "tuples, arrays and compressed leaves."
        )
    return children[0][1]


def _decode(node: _Node, arrays: Mapping[str, Any], small: bytes) -> Any:
    if type(node) in _SCALARS:
        return node
    kind = next(iter(node))
    if kind == "dict":
        return {key: _decode(value, arrays, small) for key, value in node["dict"]}
    if kind in ("list", "tuple"):
        values = [_decode(value, arrays, small) for value in node[kind]]
        return values if kind == "list" else tuple(values)
    if kind == "leaf":
        values = {name: _decode(value, arrays, small) for name, value in node["fields"].items()}
        return _leaf_class(node["leaf"], set(values))(**values)
    return _decode_array(node, arrays, small)


def _decode_array(node: _Node, arrays: Mapping[str, Any], small: bytes) -> Any:
    dtype, shape, at = _dtype(node), tuple(node["shape"]), node["at"]
    if isinstance(at, str):
        x = arrays[at]
    else:
        x = np.frombuffer(small, dtype, int(np.prod(shape)), at).reshape(shape)
    if "numpy" in node:
        return np.array(x)
    if jax.dtypes.canonicalize_dtype(dtype) != dtype:
        raise ValueError(f"the checkpoint holds {dtype} arrays; set jax_enable_x64 to restore them.")
    return jnp.asarray(x)


def _dtype(node: _Node) -> np.dtype:
    return np.dtype(node.get("array") or node["numpy"])


def _leaf_class(name: str, fields: set[str]) -> type:
    """The leaf class of this name, if it has exactly these fields."""
    known: dict[str, Any] = {cls.__name__: cls for cls in verbs.Leaf.__subclasses__()}
    if name not in known:
        raise ValueError(f"the checkpoint holds a {name}; known leaves are {', '.join(sorted(known))}.")
    own = {f.name for f in dataclasses.fields(known[name])}
    if own != fields:
        raise ValueError(f"the checkpoint's {name} has fields {sorted(fields)}; here it has {sorted(own)}.")
    return known[name]


def _children(node: _Node) -> list[_Node]:
    """The nodes inside a node, after checking that this version knows its kind and fields."""
    if type(node) in _SCALARS:
        return []
    if not isinstance(node, dict) or set(node) not in _NODES:
        raise ValueError(f"the checkpoint holds a node with unknown fields: {str(node)[:80]}.")
    inside = node.get("dict") or node.get("list") or node.get("tuple") or node.get("fields") or []
    if "dict" in node:
        return [value for _, value in inside]
    return list(inside.values()) if isinstance(inside, dict) else inside


def _shapes(node: _Node, wanted: dict[str, Any]) -> None:
    """Collect shape and dtype of every array that is stored by itself, as orbax wants them."""
    for child in _children(node):
        _shapes(child, wanted)
    if isinstance(node, dict) and isinstance(node.get("at"), str):
        shape, dtype = tuple(node["shape"]), _dtype(node)
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        device = jax.ShapeDtypeStruct(shape, dtype, sharding=here)
        wanted[node["at"]] = device if "array" in node else np.empty(shape, dtype)


def _to_json(spec: Mapping[str, Any]) -> str:
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
    import orbax.checkpoint as ocp  # takes seconds to import

    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder, arrays)
    for file in folder.rglob("*"):
        _flush(file)


def _read_arrays(folder: pathlib.Path, wanted: dict[str, Any]) -> dict[str, Any]:
    if not wanted:
        return {}
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(folder, wanted)


def _written(file: pathlib.Path, text: str) -> pathlib.Path:
    """The file, with this text, on the disk."""
    file.write_text(text)
    _flush(file)
    return file


def _commit(temporary: pathlib.Path, file: pathlib.Path) -> None:
    """Exchange a file for another; whoever reads meanwhile sees the old or the new one."""
    os.replace(temporary, file)
    _flush(file.parent)


def _flush(path: pathlib.Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
