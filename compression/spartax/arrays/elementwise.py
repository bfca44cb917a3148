"""What the leaves share whose arrays all lie along the axes of the weight: to move entries is to move them in each."""

from typing import Any

import jax
import jax.numpy as jnp

from spartax.arrays import verbs
from spartax.records import Array


def register(kind: type) -> None:
    """Give a leaf whose every array has the shape of the weight the verbs that move entries."""
    for verb, rule in _RULES.items():
        verb.register(kind)(rule)


def transpose(leaf: Any, axes: tuple[int, ...]) -> Any:
    """Also of arrays with fewer entries along an axis, such as a scale for each output."""
    return jax.tree.map(lambda x: jnp.transpose(x, axes), leaf)


def _reshape(leaf: Any, shape: tuple[int, ...]) -> Any:
    return jax.tree.map(lambda x: x.reshape(shape), leaf)


def _take(leaf: Any, rows: Array) -> Any:
    return jax.tree.map(lambda x: x[rows], leaf)


def _sliceable(leaf: Any) -> bool:
    del leaf
    return True


_RULES = {verbs.transpose: transpose, verbs.reshape: _reshape, verbs.take: _take, verbs.sliceable: _sliceable}
