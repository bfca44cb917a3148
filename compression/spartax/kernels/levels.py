"""Number formats of codes: what a code of each format means, and the nearest code of a number.

`integer` codes are themselves. `nf4` has the sixteen quantiles of a normal distribution (QLoRA, arXiv 2305.14314).
`e2m1`, `e4m3` and `e5m2` are floats of 4 and 8 bits (Microscaling, arXiv 2310.10537; FP8 formats, arXiv 2209.05433)
whose bit pattern is the code. All saturate.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from spartax.records import Array

NF4 = (-1.0, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.0910500, 0.0)
NF4 += (0.0795803, 0.1609302, 0.2461123, 0.3379152, 0.4407098, 0.5626170, 0.7229568, 1.0)
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)

TABLES = {"nf4": NF4, "e2m1": (*E2M1, *(-v for v in E2M1))}
FLOATS = {"e4m3": jnp.float8_e4m3fn, "e5m2": jnp.float8_e5m2}
LEVELS = ("integer", *TABLES, *FLOATS)
LARGEST = {"nf4": 1.0, "e2m1": 6.0, "e4m3": 448.0, "e5m2": 57344.0}
EXPONENT = {"e2m1": 2, "e4m3": 8, "e5m2": 15}  # of the largest power of two


def decode(codes: Array, levels: str) -> Array:
    """What each code means, float32: codes int8 (or uint8 below 128) of any shape."""
    if levels == "integer":
        return codes.astype(jnp.float32)
    if levels in TABLES:
        return _look_up(codes.astype(jnp.int32), TABLES[levels])
    return lax.bitcast_convert_type(codes, FLOATS[levels]).astype(jnp.float32)


def _look_up(codes: Array, table: tuple[float, ...]) -> Array:
    """A table of a power of two by one select a bit: a gather of single numbers has no vector form."""
    values, bit = [jnp.float32(v) for v in table], 1
    while len(values) > 1:
        odd = (codes & bit) != 0
        values, bit = [jnp.where(odd, b, a) for a, b in zip(values[::2], values[1::2])], bit * 2
    return values[0]


def encode(values: Array, levels: str, codes: tuple[int, int]) -> Array:
    """The nearest code of each number, int8; halves go to the even code, integers stay inside `codes`.

    `nf4` has no even code: a number in the middle of two levels goes to the lower one.
    """
    if levels == "integer":
        return jnp.clip(jnp.round(values), *codes).astype(jnp.int8)
    if levels in FLOATS:
        limited = jnp.clip(values.astype(jnp.float32), -LARGEST[levels], LARGEST[levels])
        return lax.bitcast_convert_type(limited.astype(FLOATS[levels]), jnp.int8)
    if levels == "nf4":
        return _above(values, NF4, ties_to_even=False)
    return _above(jnp.abs(values), E2M1, ties_to_even=True) + jnp.where(jnp.signbit(values), 8, 0).astype(jnp.int8)


def _above(values: Array, table: tuple[float, ...], ties_to_even: bool) -> Array:
    """How many midpoints of the ascending table lie below each number: the index of its nearest entry."""
    code = jnp.zeros(values.shape, jnp.int8)
    for i, middle in enumerate((np.array(table[:-1]) + np.array(table[1:])) / 2):
        middle = jnp.asarray(middle, values.dtype)
        code += (values >= middle if ties_to_even and i % 2 else values > middle).astype(jnp.int8)
    return code


def scale_values(scale: Array) -> Array:
    """Scales as numbers: floats are themselves; uint8 are shared exponents (E8M0), `2 ** (scale - 127)`."""
    if scale.dtype != jnp.uint8:
        return scale
    return lax.bitcast_convert_type(jnp.where(scale > 0, scale.astype(jnp.int32) << 23, 1 << 22), jnp.float32)


def shared_exponent(largest: Array, levels: str) -> Array:
    """The E8M0 scale of a block from its largest magnitude: `floor(log2 largest) - EXPONENT`, stored plus 127, uint8.

    0 for a block of zeros. Read off the bits of the float32, so exact.
    """
    bits = lax.bitcast_convert_type(largest.astype(jnp.float32), jnp.int32)
    return jnp.where(largest > 0, jnp.clip((bits >> 23) - EXPONENT[levels], 0, 254), 0).astype(jnp.uint8)


def is_integer(x: Array | jax.ShapeDtypeStruct) -> bool:
    """Whether an array holds integers."""
    return jnp.issubdtype(x.dtype, jnp.integer)
