"""How an N:M sparse matrix is laid out, and back: arrays only.

Of every group of `m` neighbours in a column, `n` values are kept. Values are `[n, groups, columns]`; the place of each
in its group is a code of `ceil(log2 m)` bits. Codes are packed across groups: `[n, cell, -(-groups // cell), columns]`
along the second axis, `cell` codes making whole bytes, so that unpacking needs shifts and no shuffles.
"""

import jax.numpy as jnp

from spartax.kernels.bits import cell, unpack_bits
from spartax.records import Array


def bits_of(m: int) -> int:
    """Bits of a place in a group of `m`."""
    return max(1, (m - 1).bit_length())


def unpacked(data: Array, m: int, groups: int) -> Array:
    """Places `[n, groups, columns]`, uint8, of packed `data [n, bytes of a cell, groups / cell, columns]`."""
    bits = bits_of(m)
    codes = unpack_bits(data, bits, 1, cell(bits)[0])
    return codes.reshape(data.shape[0], -1, data.shape[-1])[:, :groups]


def expanded(values: Array, places: Array, m: int) -> Array:
    """The matrix `[groups * m, columns]`; bit exact, since entries are chosen, never added."""
    n, groups, columns = values.shape
    position = jnp.arange(m, dtype=places.dtype)[:, None]
    out = jnp.zeros((groups, m, columns), values.dtype)
    for k in range(n):
        out = jnp.where(places[k][:, None, :] == position, values[k][:, None, :], out)
    return out.reshape(groups * m, columns)


def chosen(matrix: Array, places: Array, m: int) -> Array:
    """The kept entries `[n, groups, columns]` of a matrix `[groups * m, columns]`."""
    grouped = matrix.reshape(-1, m, matrix.shape[-1])
    return jnp.stack([jnp.take_along_axis(grouped, p[:, None, :].astype(jnp.int32), axis=1)[:, 0] for p in places])
