"""`switch`: read the weights of Double Rounding at another width."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from spartax import checks, tree
from spartax.arrays import DoubleRounded, SwitchedStep
from spartax.kernels.double_rounding import STORED
from spartax.records import Array, Params, Path


def switch(params: Params, bits: int | Array | Mapping[Path, int | Array]) -> Params:
    """The params with their double-rounded weights, stored or in training, at this many bits; codes stay as they are.

    Only an int8 of each weight changes, so nothing is traced again; under `jit` the bits may be traced themselves.

    Args:
      params: params with weights of `double_rounding`, packed or not.
      bits: 2 to 8, of all these weights or path -> bits of some.

    Raises:
      ValueError: bits out of range, an unknown path, a weight (or a tree) without double rounding.
    """
    if not isinstance(bits, Mapping):
        return _switched("params", params, bits)
    chosen = tree.pick(params, bits)
    return tree.replace(params, {path: _switched(path, weight, bits[path]) for path, weight in chosen.items()})


def _switched(name: str, params: Params, bits: int | Array) -> Params:
    if not isinstance(bits, jax.Array) or checks.is_concrete(bits):
        checks.one_of("bits", int(bits) if jnp.ndim(bits) == 0 else bits, range(2, STORED + 1))
    if not any(map(_switches, jax.tree.leaves(params, is_leaf=_switches))):
        raise ValueError(f"{name} holds no weight of double_rounding, so there is no width to switch.")
    return jax.tree.map(
        lambda x: dataclasses.replace(x, bits=jnp.full_like(x.bits, bits)) if _switches(x) else x,
        params,
        is_leaf=_switches,
    )


def _switches(x: Any) -> bool:
    return isinstance(x, DoubleRounded | SwitchedStep)
