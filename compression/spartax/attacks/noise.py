"""Noise for random starts, one stream per example.

A keyed hash of the entry's number instead of `jax.random`: starts need independent, evenly spread numbers and nothing
more, and a vectorized threefry of image size takes XLA on CPU seconds to compile, once for every attack and batch size.
The keys themselves come from threefry.
"""

import math

import jax
import jax.numpy as jnp

from spartax.records import Array


def uniform(keys: Array, like: Array) -> Array:
    """Uniform in (0, 1), float32: for every example of `like` [B, ...] its own draw from `keys` [B]."""
    words = jax.random.key_data(keys).astype(jnp.uint32)
    entry = jnp.arange(math.prod(like.shape[1:]), dtype=jnp.uint32) * jnp.uint32(0x9E3779B9)
    bits = mix(mix(entry + words[:, :1]) ^ words[:, 1:2])
    return ((bits >> 8).astype(jnp.float32) + 0.5).reshape(like.shape) * 2.0**-24


def normal(keys: Array, like: Array) -> Array:
    """Standard normal, float32, in the same way."""
    return jnp.sqrt(2.0) * jax.scipy.special.erfinv(2.0 * uniform(keys, like) - 1.0)


def mix(bits: Array) -> Array:
    """A bijection of 32-bit words in which every input bit changes every output bit half of the time (MurmurHash3)."""
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x85EBCA6B)
    bits = (bits ^ (bits >> 13)) * jnp.uint32(0xC2B2AE35)
    return bits ^ (bits >> 16)
