"""Training that survives being killed: its whole state on disk."""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from spartax import checkpoint, checks, sharding, trees
from spartax.records import Array
from spartax.train.step import State

FORMAT = 1


class Checkpoints(NamedTuple):
    """What `train.fit(..., keep=)` takes; see `checkpoints`."""

    folder: pathlib.Path
    every: int
    config: dict[str, Any]


def checkpoints(folder: str | os.PathLike, *, every: int, config: Mapping[str, Any]) -> Checkpoints:
    """Save everything that training changes every so many steps and at the end; go on from there when run again.

    A run that is killed at any moment and started by the same command ends with the same bits as one that was not:
    saved are weights, masks, optimizer, averages, best weights, losses and the number of the step, from which keys and
    data follow. Saving writes beside the previous checkpoint and exchanges the two at the end (`spartax.save`). What is
    read lies as the state given to `fit` does, on any number of devices and processes. Of several processes all call
    `fit`, with the same folder on a disk that they share: the first one writes what all have gathered in its memory,
    whole, the others wait for it, and every one reads.

    Args:
      folder: where; the run makes it.
      every: steps between two checkpoints.
      config: all that decides the result and is not in the state, JSON values: data, batch size, loss and its eps,
        learning rate, and the options of a compression in training, of which a state shows only some (the weights it
        works on, the structure and fixed fields of what it remembers): sparsity and schedule belong here. A checkpoint
        of another configuration, key, structure or start is refused.

    Raises:
      ValueError: `every` is no positive integer, `config` holds other than JSON values; in `fit`, the folder holds a
        checkpoint of another run or of a newer format, or only some of the processes find one there; the state of the
        method holds what cannot be saved, which is said before the first step.
      OSError: in `fit`, a checkpoint could not be written (a full disk); the previous one is unchanged.
    """
    checks.positive_int("every", every)
    try:
        plain = json.loads(json.dumps(dict(config)))
    except TypeError as error:
        raise ValueError(f"config must hold JSON values only: {error}.") from error
    return Checkpoints(pathlib.Path(folder), every, plain)


def fingerprint(keep: Checkpoints, state: State, key: Array) -> dict[str, Any]:
    """What must be equal for a checkpoint to be continued: `config`, and hashes of the rest.

    Raises:
      ValueError: the state of the method holds what cannot be saved.
    """
    trees.encode(_method(state), "state.method", lambda where, x: 0)
    flat = jax.tree_util.tree_flatten_with_path(state._replace(method=None, best=None))[0]
    shapes = [(jax.tree_util.keystr(keys), np.shape(x), str(jnp.result_type(x))) for keys, x in flat]
    hashes = {"key": _hash(key), "structure": _hash(str(shapes)), "start": _hash(*(x for _, x in flat))}
    return {"config": keep.config, **hashes, "method": _hash(_remembered(state))}


def save(keep: Checkpoints, print_of: dict[str, Any], state: State, losses: list[Any]) -> None:
    """Make the state durable; when it returns it is, in every process.

    Raises:
      OSError: in every process, where the first one could not write.
    """
    flat = jax.tree_util.tree_flatten_with_path(state._replace(method=None))[0]
    saved = {
        "leaves": {jax.tree_util.keystr(keys): _whole(_without_keys(x)) for keys, x in flat},
        "method": _method(state),
        "losses": np.asarray(jax.device_get(losses), np.float32),
    }
    failed = None
    if jax.process_index() == 0:
        try:
            checkpoint.save(keep.folder, saved, extra={"training": FORMAT, "fingerprint": print_of})
        except Exception as error:
            failed = error
    failures = multihost_utils.process_allgather(np.asarray(failed is not None))  # the others wait here
    if failed is not None:
        raise failed
    if np.any(failures):
        raise OSError(f"{keep.folder} could not be written by process 0, whose error says why.")


def resume(keep: Checkpoints, print_of: dict[str, Any], state: State) -> tuple[State, list[Any]]:
    """The state and losses that were saved last, or the given state where nothing was."""
    found = multihost_utils.process_allgather(np.asarray((keep.folder / "spec.json").exists()))
    if np.any(found) and not np.all(found):
        raise ValueError(f"{keep.folder} holds a checkpoint for some processes only; name a folder that all share.")
    if not np.all(found):
        return state, []
    _check(keep.folder, checkpoint.extra(keep.folder), print_of)
    saved = checkpoint.restore(keep.folder)
    flat, treedef = jax.tree_util.tree_flatten_with_path(state._replace(method=None))
    leaves = saved["leaves"]
    names = [jax.tree_util.keystr(keys) for keys, _ in flat]
    if set(names) != set(leaves):
        raise ValueError(f"{keep.folder} was saved {'with' if len(leaves) > len(names) else 'without'} validate.")
    new = treedef.unflatten([_placed(leaves[name], like) for name, (_, like) in zip(names, flat)])
    method = state.method
    if method is not None:
        inner, info = saved["method"]
        method = method._replace(state=_like(method.state, inner), info=info)
    return new._replace(method=method), list(saved["losses"])


def _check(folder: pathlib.Path, extra: dict[str, Any], print_of: dict[str, Any]) -> None:
    if extra.get("training") != FORMAT:
        found = extra.get("training")
        raise ValueError(f"{folder} has training format {found!r}; this version reads {FORMAT}. Name another folder.")
    old, new = extra["fingerprint"], print_of
    names = sorted({*old["config"], *new["config"]})
    pairs = {f"config[{n!r}]": (old["config"].get(n), new["config"].get(n)) for n in names}
    different = [f"{name} was {a!r} and is {b!r}" for name, (a, b) in pairs.items() if a != b]
    what = {
        "key": "the key differs",
        "structure": "weights or optimizer state have another structure",
        "start": "the weights that training starts from differ",
        "method": "the compression in training works on other weights or remembers other things",
    }
    # earlier checkpoints of this format say nothing of the method
    different += [text for name, text in what.items() if old.get(name, new[name]) != new[name]]
    if different:
        raise ValueError(
            f"{folder} holds the checkpoint of another run: {'; '.join(different)}. Name another folder, or remove it "
            "to start again."
        )


def _hash(*values: Any) -> str:
    digest = hashlib.sha256()
    for value in values:
        digest.update(value.encode() if isinstance(value, str) else np.asarray(_whole(_without_keys(value))).tobytes())
    return digest.hexdigest()


def _is_key(x: Any) -> bool:
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _without_keys(x: Any) -> Any:
    return jax.random.key_data(x) if _is_key(x) else x


def _whole(x: Any) -> Any:
    """What is spread over several processes, gathered in the memory of each."""
    if not isinstance(x, jax.Array) or x.is_fully_addressable:
        return x
    return np.asarray(x) if x.is_fully_replicated else multihost_utils.process_allgather(x, tiled=True)


def _placed(new: Any, like: Any) -> Any:
    """What was read, as `like` is: a key, and on its devices."""
    if not isinstance(like, jax.Array):
        return new
    new = sharding.spread(new, like.sharding) if like.committed else jnp.asarray(new)
    return jax.random.wrap_key_data(new, impl=jax.random.key_impl(like)) if _is_key(like) else new


def _method(state: State) -> Any:
    return None if state.method is None else _plain((state.method.state, state.method.info))


def _remembered(state: State) -> str:
    """The weights that a method works on, and its state without the values of arrays."""
    if state.method is None:
        return ""
    # NumPy, because what was spread over processes comes back as such
    node = jax.tree.map(lambda x: np.asarray(x) if isinstance(x, jax.Array) else x, _plain(state.method.state))
    return json.dumps([sorted(state.method.layouts), trees.encode(node, "state.method", lambda where, x: 0)])


def _is_record(x: Any) -> bool:
    """Whether it is a dataclass that is no compressed leaf, such as the state of a chain."""
    return dataclasses.is_dataclass(x) and not isinstance(x, type) and not trees.is_known(x)


def _fields(record: Any) -> dict[str, Any]:
    return {f.name: getattr(record, f.name) for f in dataclasses.fields(record)}


def _plain(node: Any) -> Any:
    """The state of a method without its record types, which `_like` puts back."""
    if _is_record(node):
        node = _fields(node)
    if isinstance(node, Mapping):
        return {name: _plain(value) for name, value in node.items()}
    if isinstance(node, (tuple, list)):
        return (tuple if isinstance(node, tuple) else list)(_plain(value) for value in node)
    return jax.tree.map(_whole, node)


def _like(like: Any, node: Any) -> Any:
    """Not by structure: a method's state may change its structure as it goes."""
    if isinstance(node, dict):
        known = _fields(like) if _is_record(like) else like if isinstance(like, Mapping) else {}
        values = {name: _like(known.get(name), value) for name, value in node.items()}
        return type(like)(**values) if _is_record(like) else values
    if not isinstance(node, (tuple, list)):
        return node
    known = like if isinstance(like, (tuple, list)) and len(like) == len(node) else [None] * len(node)
    values = [_like(a, b) for a, b in zip(known, node)]
    return type(like)(*values) if hasattr(like, "_fields") else type(node)(values)
