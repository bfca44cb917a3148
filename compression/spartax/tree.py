"""Doors between a params tree and its weights: paths, select and replace, split and merge.

A compressed leaf counts as one weight here. Paths are the keys of the tree joined by "/".
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from spartax import checks
from spartax.arrays.verbs import is_leaf
from spartax.records import Params, Path, Rule, Weights


def argument(function: Callable[..., Any]) -> jax.tree_util.Partial:
    """The function as a pytree: an argument of jitted code, which then is compiled once for all arrays it holds."""
    return function if isinstance(function, jax.tree_util.Partial) else jax.tree_util.Partial(function)


def path_name(keys: Iterable[Any]) -> Path:
    """ "block1/conv/kernel" from the key path of `jax.tree_util`; the `.value` of NNX variables is left out."""
    names = [jax.tree_util.keystr((k,), simple=True) for k in keys]
    return "/".join(names[:-1] if len(names) > 1 and names[-1] in ("value", "raw_value") else names)


def weights(params: Params) -> Weights:
    """Every array and compressed leaf of the tree by path."""
    flat = jax.tree_util.tree_flatten_with_path(params, is_leaf=is_leaf)[0]
    named = {path_name(keys): value for keys, value in flat}
    if len(named) != len(flat):
        raise ValueError("params: two weights have the same path; give the containers of the tree distinct keys.")
    return named


def select(params: Params, rule: Rule) -> Weights:
    """The floating weights that `rule(path, weight)` says yes to; a rule that selects nothing is an error."""
    chosen = {p: w for p, w in weights(params).items() if is_floating(w) and rule(p, w)}
    if not chosen:
        known = ", ".join(list(weights(params))[:8])
        raise ValueError(f"rule selects no floating weight; params have the paths {known}, ...")
    return chosen


def pick(params: Params, paths: Iterable[Path]) -> Weights:
    """The weights with these paths, in this order; an unknown path is an error."""
    known = weights(params)
    for path in paths:
        if path not in known:
            checks.one_of("path", path, list(known))
    return {path: known[path] for path in paths}


def replace(params: Params, new: Mapping[Path, Any]) -> Params:
    """The tree with the weights of these paths exchanged; an unknown path is an error."""
    flat, treedef = jax.tree_util.tree_flatten_with_path(params, is_leaf=is_leaf)
    names = [path_name(keys) for keys, _ in flat]
    for path in new:
        if path not in names:
            checks.one_of("path", path, names)
    return treedef.unflatten([new.get(name, value) for name, (_, value) in zip(names, flat)])


def is_floating(x: Any) -> bool:
    """Whether a weight (array or leaf) is of a floating dtype."""
    return hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.floating)


def split(params: Params, rule: Rule | None = None) -> tuple[Params, Params]:
    """`(trainable, fixed)`: floating arrays, and everything else (codes, masks); `merge` undoes it.

    Both have the structure of `params` with None in the places of the other, so `jax.grad` and optax see only what can
    be trained. Scales and factors inside compressed leaves are trainable.

    Args:
      params: tree of arrays and compressed leaves.
      rule: `(path, array) -> bool`, which floating arrays are trained; all of them when left out. The path of an array
        inside a leaf ends in its field: `"dense/kernel/scores"`.

    Raises:
      ValueError: the rule says yes to none of them.
    """
    flat, treedef = jax.tree_util.tree_flatten_with_path(params)
    trained = [is_floating(x) and (rule is None or bool(rule(path_name(keys), x))) for keys, x in flat]
    if rule is not None and not any(trained):
        known = ", ".join([path_name(keys) for keys, x in flat if is_floating(x)][:8])
        raise ValueError(f"rule trains no floating array; params have {known}, ...")
    trainable = treedef.unflatten([x if yes else None for yes, (_, x) in zip(trained, flat)])
    return trainable, treedef.unflatten([None if yes else x for yes, (_, x) in zip(trained, flat)])


def merge(trainable: Params, fixed: Params) -> Params:
    """The tree that `split` took apart."""
    return jax.tree.map(lambda a, b: b if a is None else a, trainable, fixed, is_leaf=lambda x: x is None)


def inner(path: Path, weight: Any, kind: type, what: str) -> Any:
    """The leaf of this class in a weight, which a later transform may have wrapped; `what` names it in the error."""
    found = [x for x in jax.tree.leaves(weight, is_leaf=lambda x: isinstance(x, kind)) if isinstance(x, kind)]
    if not found:
        raise ValueError(f"{path} holds no {what}; call init of this transform first.")
    return found[0]


def exchanged(weight: Any, new: Any) -> Any:
    """The weight with `new` in place of its leaf of the same class."""
    same = lambda x: isinstance(x, type(new))  # noqa: E731
    return jax.tree.map(lambda x: new if same(x) else x, weight, is_leaf=same)
