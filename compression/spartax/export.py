"""Export: a network as StableHLO that runs without this package, packed weights as one safetensors file.

Sizes are exact bytes of the written files. Every file appears whole or not at all.
"""

import contextlib
import json
import os
import pathlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.export
import numpy as np
import safetensors as st
import safetensors.numpy as st_numpy

from spartax import checkpoint, checks, trees
from spartax.program import compressed
from spartax.records import ApplyFn, Params

SOURCE_LINES = "jax_traceback_in_locations_limit"  # how many of them an operation of a program names
_LOWERING = threading.Lock()
FORMAT = 1
_HEADER = {"format", "tree", "about"}
FIELD = "spartax"  # of the metadata of a safetensors file: the JSON header
# the others are stored as their bytes, uint8 in one axis
_NATIVE = {"bool", "bfloat16", "float16", "float32", "float64", "float8_e4m3fn", "float8_e5m2"}
_NATIVE |= {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}


class Exported(NamedTuple):
    """What `stablehlo` wrote.

    Attributes:
      bytes: of the file.
      batch: number of examples it takes; None for any.
      why: why the batch is fixed; empty when it is not.
    """

    bytes: int
    batch: int | None
    why: str


def stablehlo(
    path: str | os.PathLike,
    apply: ApplyFn,
    params: Params,
    x_shape: Sequence[int],
    *,
    platforms: Sequence[str] = ("cpu",),
    weights: str = "inside",
) -> Exported:
    """Write `apply(params, x)` as one StableHLO file that JAX alone runs: `jax.export.deserialize(data).call(x)`.

    Weights stay in it as they are stored, so `pack` them first for the smallest file. The program names no source file:
    it is the same wherever it is traced, and tells nothing of that machine. The kernels are those of the device that
    exports. The batch is left open where the program allows that, else it is `x_shape[0]`.

    Args:
      path: the file; a folder that is not there is made.
      apply: pure function `(params, x) -> logits [B, K]`, plain or made by `compressed`.
      params: arrays and compressed leaves.
      x_shape: of the float32 input, batch first.
      platforms: devices it is to run on: "cpu", "cuda", "rocm", "tpu".
      weights: "inside" the file as constants, or an "argument": then it is called as `call(tensors, x)`, where
        `tensors` are the arrays by name as in the file that `safetensors` writes of the same params.

    Returns:
      `Exported(bytes, batch, why)`.

    Raises:
      ValueError: unknown platforms or weights, a shape that is none, params that do not fit, or two arrays whose
        paths are spelled alike.
      OSError: it could not be written; a file that was there before is unchanged.

    Example:
      >>> import pathlib, tempfile
      >>> import jax, jax.export
      >>> import jax.numpy as jnp
      >>> from spartax import export
      >>> params = {"kernel": jnp.array([[1.0, 2.0], [3.0, 4.0]])}
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = pathlib.Path(folder) / "network.stablehlo"
      ...     done = export.stablehlo(path, lambda params, x: x @ params["kernel"], params, (1, 2))
      ...     again = jax.export.deserialize(bytearray(path.read_bytes()))
      >>> done.batch is None, again.call(jnp.ones((3, 2))).tolist()
      (True, [[4.0, 6.0], [4.0, 6.0], [4.0, 6.0]])
    """
    checks.one_of("weights", weights, ("inside", "argument"))
    for platform in platforms:
        checks.one_of("platforms", platform, ("cpu", "cuda", "rocm", "tpu"))
    if not platforms or len(x_shape) < 2 or not all(isinstance(n, int) and n > 0 for n in x_shape):
        raise ValueError(f"x_shape must be positive integers, batch first, for one platform or more; got {x_shape}.")
    tensors: dict[str, Any] = {}
    tree = trees.encode(params, "params", lambda where, x: _named(where, x, tensors))
    run = compressed(apply)

    def outside(tensors: dict[str, jax.Array], x: jax.Array) -> Any:
        return run(trees.decode(tree, lambda node: tensors[node["at"]]), x)

    def inside(x: jax.Array) -> Any:
        return outside(tensors, x)

    shapes = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in tensors.items()}
    function, first = (jax.jit(inside), ()) if weights == "inside" else (jax.jit(outside), (shapes,))
    data, why = _serialized(function, first, tuple(x_shape), tuple(platforms))
    return Exported(_written(path, data), int(x_shape[0]) if why else None, why)


def _serialized(function: Any, first: tuple, shape: tuple[int, ...], platforms: tuple[str, ...]) -> tuple[bytes, str]:
    """The program, with an open batch or else the reason why it is fixed."""
    export = jax.export.export(function, platforms=platforms)
    sizes = ", ".join(str(n) for n in shape[1:])
    try:
        free = jax.ShapeDtypeStruct(jax.export.symbolic_shape(f"batch, {sizes}"), np.float32)
        with _nameless():
            return bytes(export(*first, free).serialize()), ""
    except Exception as error:  # whatever in the program asks for the number
        why = f"{type(error).__name__}: {error}".splitlines()[0]
    try:
        with _nameless():
            return bytes(export(*first, jax.ShapeDtypeStruct(shape, np.float32)).serialize()), why
    except Exception as error:
        line = f"{error}".splitlines()[0]
        raise ValueError(f"apply(params, x) cannot be exported for x {shape}: {line}") from error


@contextlib.contextmanager
def _nameless() -> Iterator[None]:
    """Programs are lowered without the source lines of their operations; the option for it is one of all threads."""
    with _LOWERING:
        lines = getattr(jax.config, SOURCE_LINES)
        jax.config.update(SOURCE_LINES, 0)
        try:
            yield
        finally:
            jax.config.update(SOURCE_LINES, lines)


def _named(where: str, x: Any, tensors: dict[str, Any]) -> str:
    if where in tensors:
        raise ValueError(f"params has two arrays with the path {where!r}; rename a key, each needs a path of its own.")
    tensors[where] = x
    return where


def safetensors(path: str | os.PathLike, params: Params, about: Mapping[str, Any] | None = None) -> int:
    """Write a tree of arrays and compressed leaves as they stand; call `pack` first for the smallest size.

    Every array is a tensor named by its path (`params/dense/kernel.codes.words`); the structure and `about` are JSON in
    the field `spartax` of the file's metadata. Dtypes that the format lacks are stored as their bytes.

    Args:
      path: the file; one that is there is replaced, a folder that is not is made.
      params: as for `sx.save`.
      about: notes to keep with it, JSON values only; the function `about` reads them.

    Returns:
      Bytes of the file.

    Raises:
      ValueError: a node that could not be restored without a template, two arrays whose paths are spelled alike
        (`{"a/b": x, "a": {"b": y}}`), notes that are not JSON.
      OSError: it could not be written; a file that was there before is unchanged.
    """
    found: dict[str, Any] = {}
    notes = _checked(dict(about or {}))
    tree = trees.encode(params, "params", lambda where, x: _named(where, x, found))
    header = checkpoint.to_json({"format": FORMAT, "tree": tree, "about": notes})
    return _written(path, st_numpy.save({name: _storable(x) for name, x in found.items()}, {FIELD: header}))


def _checked(about: dict[str, Any]) -> dict[str, Any]:
    try:
        json.dumps(about, allow_nan=False)  # NaN and infinity are Python's alone: other readers refuse them
    except (TypeError, ValueError) as error:
        raise ValueError(f"about must hold JSON values only; got {str(about)[:200]}: {error}.") from error
    return about


def read_safetensors(path: str | os.PathLike) -> Params:
    """The tree that `safetensors` wrote: same containers, leaf classes, dtypes and bits, on the default device.

    Raises:
      ValueError: a file that is damaged, of something else, or of a newer format.
    """
    header, tensors = _header(path), dict(st.deserialize(pathlib.Path(path).read_bytes()))

    def fetch(node: trees.Node) -> Any:
        try:
            data = np.frombuffer(tensors[node["at"]]["data"], trees.dtype(node)).reshape(node["shape"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is damaged: it holds no array {node}.") from error
        return trees.value(node, data)

    _check(header["tree"])
    return trees.decode(header["tree"], fetch)


def about(path: str | os.PathLike) -> dict[str, Any]:
    """The notes that were written with a safetensors file."""
    return _header(path)["about"]


def _check(node: trees.Node) -> None:
    for child in trees.children(node):
        _check(child)


def _header(path: str | os.PathLike) -> dict[str, Any]:
    if not pathlib.Path(path).is_file():
        raise ValueError(f"path {path} is no file.")
    try:
        with st.safe_open(path, "np") as file:
            metadata = file.metadata() or {}
    except st.SafetensorError as error:
        raise ValueError(f"{path} is damaged or no safetensors file: {error}.") from error
    if FIELD not in metadata:
        raise ValueError(f"{path} was not written by spartax: its metadata has no field {FIELD!r}.")
    try:
        header = json.loads(metadata[FIELD])
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is damaged: its field {FIELD!r} is no JSON: {error}.") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        found = header.get("format") if isinstance(header, dict) else header
        raise ValueError(f"{path} has format {found!r}; this version reads format {FORMAT}.")
    if set(header) != _HEADER or not isinstance(header["about"], dict):
        raise ValueError(f"{path} is damaged: its header must hold {sorted(_HEADER)}; got {sorted(header)}.")
    return header


def _storable(x: Any) -> np.ndarray:
    array = np.asarray(x, order="C")
    return array if array.dtype.name in _NATIVE else np.frombuffer(array.tobytes(), np.uint8)


def _written(path: str | os.PathLike, data: bytes) -> int:
    """Write beside the file, then exchange them; gives the bytes."""
    path = pathlib.Path(path)
    beside = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(data)
        checkpoint.flush(beside)
        checkpoint.commit(beside, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise OSError(f"{path} could not be written: {error.strerror or error}") from error
    return len(data)
