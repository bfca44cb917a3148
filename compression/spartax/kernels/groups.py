"""The largest entries of every few neighbours."""

import functools

import jax
import jax.numpy as jnp

from spartax.records import Array


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def top_of_groups(score: Array, n: int, m: int, axis: int) -> Array:
    """Bool mask of the `n` largest of every `m` consecutive entries along `axis`; ties go to the lower index.

    Args:
      score: floating array without NaN, whose axis is a multiple of `m` long.
      n: kept entries of a group.
      m: size of a group.
      axis: along which groups lie.
    """
    moved = jnp.moveaxis(score, axis, -1)
    groups = moved.reshape(*moved.shape[:-1], -1, m)
    # An entry is kept if fewer than `n` others come before it: larger, or equal and to the left.
    mine, other = groups[..., :, None], groups[..., None, :]
    position = jnp.arange(m)
    before = (other > mine) | ((other == mine) & (position < position[:, None]))
    kept = jnp.sum(before, axis=-1) < n
    return jnp.moveaxis(kept.reshape(moved.shape), -1, axis)
