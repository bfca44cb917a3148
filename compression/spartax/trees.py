"""A params tree as JSON: what every node is, with its arrays kept elsewhere; read back without a template."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spartax import checks
from spartax.arrays import FixedPoint, LearntClip, LearntStep, Sign, SwitchedStep, verbs

Node = Any  # a JSON scalar, or a dictionary with the fields of one of _NODES
Keep = Callable[[str, Any], str | int]  # (path, array) -> where it is kept
_NODES = ({"dict"}, {"list"}, {"tuple"}, {"leaf", "fields"}, {"array", "shape", "at"}, {"numpy", "shape", "at"})
_QUANTIZERS = (
    FixedPoint,
    LearntClip,
    LearntStep,
    Sign,
    SwitchedStep,
)  # inside leaves of training, no leaves themselves
_SCALARS = (type(None), bool, int, float, str)


def encode(node: Any, where: str, keep: Keep) -> Node:
    """What a tree is, as JSON.

    Args:
      node: dicts, lists, tuples, None, arrays, numbers, strings and compressed leaves, nested in any way. Other
        mappings come back as dicts, NNX variables as their arrays.
      where: path of the node, for names and errors.
      keep: is given the path and the value of every array; what it returns is written in the place of the array.

    Raises:
      ValueError: a node that could not be read back without a template.
    """
    if type(node) in _SCALARS:
        return node
    if is_known(node):
        fields = {f.name: getattr(node, f.name) for f in dataclasses.fields(node)}
        coded = {name: encode(value, f"{where}.{name}", keep) for name, value in fields.items()}
        return {"leaf": type(node).__name__, "fields": coded}
    if isinstance(node, Mapping):
        if not all(isinstance(key, (str, int)) for key in node):
            raise ValueError(f"{where} has keys that are neither strings nor integers: {list(node)[:5]}.")
        return {"dict": [[key, encode(value, f"{where}/{key}", keep)] for key, value in node.items()]}
    if type(node) in (list, tuple):
        return {type(node).__name__: [encode(v, f"{where}/{i}", keep) for i, v in enumerate(node)]}
    if isinstance(node, (jax.Array, np.ndarray, np.generic)):
        return _encode_array(node, where, keep)
    return encode(_only_value(node, where), where, keep)


def is_known(node: Any) -> bool:
    """Whether it is of a class that is read back by its name: a compressed leaf, or a quantizer inside one."""
    return verbs.is_leaf(node) or type(node) in _QUANTIZERS


def _encode_array(x: Any, where: str, keep: Keep) -> Node:
    if not checks.is_concrete(x):
        raise ValueError(f"{where} has no value yet: save cannot run under jit.")
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) or x.dtype.kind in "OSUMm":
        raise ValueError(f"{where} has dtype {x.dtype}, which cannot be saved; a key is saved as jax.random.key_data.")
    kind = "array" if isinstance(x, jax.Array) else "numpy"
    return {kind: np.dtype(x.dtype).name, "shape": list(x.shape), "at": keep(where, x)}


def _only_value(node: Any, where: str) -> Any:
    """The array inside a box with a single child called value, such as an NNX variable."""
    inside = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda x: x is not node)[0]
    names = [jax.tree_util.keystr(keys, simple=True) for keys, _ in inside]
    if names not in (["value"], ["raw_value"]):
        raise ValueError(
            f"{where} is a {type(node).__name__}, which cannot be restored without a template; save dicts, lists, "
            "tuples, arrays and compressed leaves."
        )
    return inside[0][1]


def decode(node: Node, fetch: Callable[[Node], Any]) -> Any:
    """The tree that `encode` described; `fetch` is given the node of every array and returns the array.

    Raises:
      ValueError: classes or fields that this version does not know.
    """
    if type(node) in _SCALARS:
        return node
    kind = next(iter(node))
    if kind == "dict":
        return {key: decode(value, fetch) for key, value in node["dict"]}
    if kind in ("list", "tuple"):
        values = [decode(value, fetch) for value in node[kind]]
        return values if kind == "list" else tuple(values)
    if kind == "leaf":
        values = {name: decode(value, fetch) for name, value in node["fields"].items()}
        return _leaf_class(node["leaf"], set(values))(**values)
    return fetch(node)


def value(node: Node, x: Any) -> Any:
    """The array of a node, on the device or in NumPy as it was saved.

    Raises:
      ValueError: 64-bit numbers, which JAX has been told not to use.
    """
    if "numpy" in node:
        return np.array(x)
    if jax.dtypes.canonicalize_dtype(dtype(node)) != dtype(node):
        raise ValueError(f"the checkpoint holds {dtype(node)} arrays; set jax_enable_x64 to restore them.")
    return jnp.asarray(x)


def dtype(node: Node) -> np.dtype:
    """The dtype of the node of an array."""
    return np.dtype(node.get("array") or node["numpy"])


def _leaf_class(name: str, fields: set[str]) -> type:
    """The leaf class of this name, if it has exactly these fields."""
    known: dict[str, Any] = {cls.__name__: cls for cls in (*verbs.Leaf.__subclasses__(), *_QUANTIZERS)}
    if name not in known:
        raise ValueError(f"the checkpoint holds a {name}; known leaves are {', '.join(sorted(known))}.")
    own = {f.name for f in dataclasses.fields(known[name])}
    if own != fields:
        raise ValueError(f"the checkpoint's {name} has fields {sorted(fields)}; here it has {sorted(own)}.")
    return known[name]


def children(node: Node) -> list[Node]:
    """The nodes inside a node.

    Raises:
      ValueError: this version does not know its kind or fields.
    """
    if type(node) in _SCALARS:
        return []
    if not isinstance(node, dict) or set(node) not in _NODES:
        raise ValueError(f"the checkpoint holds a node with unknown fields: {str(node)[:80]}.")
    inside = node.get("dict") or node.get("list") or node.get("tuple") or node.get("fields") or []
    if "dict" in node:
        return [value for _, value in inside]
    return list(inside.values()) if isinstance(inside, dict) else inside
