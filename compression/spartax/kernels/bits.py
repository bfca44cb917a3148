"""Integers of 1 to 8 bits packed into bytes, and back.

Codes form one little-endian bit stream along an axis: code `i` takes bits `[i b, (i + 1) b)` of it. With `b` bits,
`8 / gcd(8, b)` codes fill `b / gcd(8, b)` bytes; the last cell is padded with zero codes.

Unpacking on its own has no hand-written kernel on any platform: it is elementwise, so that XLA makes one pass of it and
joins it with what uses the codes. The Pallas kernels of products unpack their tiles themselves, where they lie. Codes
are integers, so nothing has a derivative.
"""

import functools
import math

import jax
import jax.numpy as jnp

from spartax.records import Array


def cell(bits: int) -> tuple[int, int]:
    """(codes, bytes) of the smallest cell of whole bytes."""
    common = math.gcd(8, bits)
    return 8 // common, bits // common


def packed_length(length: int, bits: int) -> int:
    """Bytes that `length` codes of `bits` bits take."""
    codes, size = cell(bits)
    return -(-length // codes) * size


@functools.partial(jax.jit, static_argnums=(1, 2))
def pack_bits(codes: Array, bits: int, axis: int) -> Array:
    """Pack `codes` (integers or bools in [0, 2**bits)) along `axis` into uint8."""
    count, size = cell(bits)
    x = jnp.moveaxis(codes, axis, -1).astype(jnp.uint16)
    x = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, -x.shape[-1] % count)])
    x = x.reshape(*x.shape[:-1], -1, count)
    cells = [jnp.zeros(x.shape[:-1], jnp.uint16) for _ in range(size)]
    for i in range(count):
        byte, shift = divmod(i * bits, 8)
        cells[byte] |= (x[..., i] << shift) & 0xFF
        if shift + bits > 8:
            cells[byte + 1] |= x[..., i] >> (8 - shift)
    packed = jnp.stack(cells, axis=-1).astype(jnp.uint8)
    return jnp.moveaxis(packed.reshape(*packed.shape[:-2], -1), -1, axis)


def planes(packed: Array, bits: int) -> list[Array]:
    """The codes at each place of the cells of the last axis: `planes(p, b)[i][..., j]` is code `j * count + i`, uint8.

    Elementwise, so that a matmul can go plane by plane without ever putting the codes in order.
    """
    count, size = cell(bits)
    data = [packed[..., k::size] if size > 1 else packed for k in range(size)]
    found = []
    for i in range(count):
        byte, shift = divmod(i * bits, 8)
        code = data[byte] >> shift
        if shift + bits > 8:
            code |= data[byte + 1] << (8 - shift)
        found.append(code & (2**bits - 1))
    return found


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def unpack_bits(packed: Array, bits: int, axis: int, length: int) -> Array:
    """The first `length` codes along `axis`, uint8 in [0, 2**bits)."""
    flat = jnp.stack(planes(jnp.moveaxis(packed, axis, -1), bits), axis=-1)
    flat = flat.reshape(*flat.shape[:-2], -1)[..., :length]
    return jnp.moveaxis(flat, -1, axis)
