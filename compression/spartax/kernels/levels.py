"""Number formats of codes: what a code of each format means, and the nearest code of a number.

`integer` codes are themselves. `nf4` has the sixteen quantiles of a normal distribution (QLoRA, arXiv 2305.14314).
`e2m1`, `e4m3` and `e5m2` are floats of 4 and 8 bits (Microscaling, arXiv 2310.10537; FP8 formats, arXiv 2209.05433)
whose bit pattern is the code. `binary` codes 0 and 1 are -1 and 1. `power_of_two` codes are signed: c stands for
`sign(c) * 2**(|c| - 1)`, 0 for zero. All saturate.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from spartax.records import Array

NF4 = (-1.0, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.0910500, 0.0)
NF4 += (0.0795803, 0.1609302, 0.2461123, 0.3379152, 0.4407098, 0.5626170, 0.7229568, 1.0)
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)

TABLES = {"nf4": NF4, "e2m1": (*E2M1, *(-v for v in E2M1)), "binary": (-1.0, 1.0)}
FLOATS = {"e4m3": jnp.float8_e4m3fn, "e5m2": jnp.float8_e5m2}
LEVELS = ("integer", "power_of_two", *TABLES, *FLOATS)
LARGEST = {"nf4": 1.0, "e2m1": 6.0, "binary": 1.0, "e4m3": 448.0, "e5m2": 57344.0}
WITHOUT_CODE_ZERO = ("nf4", "binary")  # code 0 is not the number zero
BIAS, MANTISSA = 127, 23  # of a float32
EXPONENT = {"e2m1": 2, "e4m3": 8, "e5m2": 15}  # of the largest power of two


def decode(codes: Array, levels: str) -> Array:
    """What each code means, float32: codes int8 (or uint8 below 128) of any shape."""
    if levels == "integer":
        return codes.astype(jnp.float32)
    if levels in TABLES:
        return _look_up(codes.astype(jnp.int32), TABLES[levels])
    if levels == "power_of_two":
        wide = codes.astype(jnp.int32)
        power = lax.bitcast_convert_type((jnp.abs(wide) + (BIAS - 1)) << MANTISSA, jnp.float32)
        return jnp.where(wide == 0, 0.0, jnp.sign(wide).astype(jnp.float32) * power)
    return lax.bitcast_convert_type(codes, FLOATS[levels]).astype(jnp.float32)


def largest(levels: str, codes: tuple[int, int]) -> float:
    """The largest number that codes of this range stand for."""
    if levels == "power_of_two":
        return 2.0 ** (codes[1] - 1)
    return LARGEST.get(levels, float(codes[1]))


def _look_up(codes: Array, table: tuple[float, ...]) -> Array:
    """A table of a power of two by one select a bit: a gather of single numbers has no vector form."""
    values, bit = [jnp.float32(v) for v in table], 1
    while len(values) > 1:
        odd = (codes & bit) != 0
        values, bit = [jnp.where(odd, b, a) for a, b in zip(values[::2], values[1::2])], bit * 2
    return values[0]


def encode(values: Array, levels: str, codes: tuple[int, int]) -> Array:
    """The nearest code of each number, int8, inside `codes`; halves go to the even code.

    `nf4` and `binary` have no even code: a number in the middle of two levels goes to the lower one.
    """
    if levels == "integer":
        return jnp.clip(jnp.round(values), *codes).astype(jnp.int8)
    if levels in FLOATS:
        limited = jnp.clip(values.astype(jnp.float32), -LARGEST[levels], LARGEST[levels])
        return lax.bitcast_convert_type(limited.astype(FLOATS[levels]), jnp.int8)
    if levels == "power_of_two":
        return _power(values.astype(jnp.float32), codes)
    if levels in WITHOUT_CODE_ZERO:
        return _above(values, TABLES[levels], ties_to_even=False)
    return _above(jnp.abs(values), E2M1, ties_to_even=True) + jnp.where(jnp.signbit(values), 8, 0).astype(jnp.int8)


def _above(values: Array, table: tuple[float, ...], ties_to_even: bool) -> Array:
    """How many midpoints of the ascending table lie below each number: the index of its nearest entry."""
    code = jnp.zeros(values.shape, jnp.int8)
    for i, middle in enumerate((np.array(table[:-1]) + np.array(table[1:])) / 2):
        middle = jnp.asarray(middle, values.dtype)
        code += (values >= middle if ties_to_even and i % 2 else values > middle).astype(jnp.int8)
    return code


def _power(values: Array, codes: tuple[int, int]) -> Array:
    """The nearest signed power of two: magnitudes from 1.5 times one on go to the next, those up to 1/2 to zero."""
    size = jnp.abs(values)
    code = jnp.maximum(_rounded_exponent(size) + 1, jnp.where(size > 0.5, 1, 0))
    return jnp.clip(jnp.where(values < 0, -code, code), *codes).astype(jnp.int8)


def _rounded_exponent(size: Array) -> Array:
    """Exponent of the nearest power of two of positive float32 numbers; one in the middle goes to the odd exponent."""
    bits = lax.bitcast_convert_type(size, jnp.int32)
    exponent, rest = (bits >> MANTISSA) - BIAS, bits & (2**MANTISSA - 1)
    middle = 2 ** (MANTISSA - 1)
    return exponent + jnp.where(rest > middle, 1, jnp.where(rest == middle, 1 - exponent & 1, 0))


def scale_values(scale: Array) -> Array:
    """Scales as numbers: floats are themselves; uint8 are shared exponents (E8M0), `2 ** (scale - 127)`, 255 NaN."""
    if scale.dtype != jnp.uint8:
        return scale
    power = lax.bitcast_convert_type(
        jnp.where(scale > 0, scale.astype(jnp.int32) << MANTISSA, 1 << (MANTISSA - 1)), jnp.float32
    )
    return jnp.where(scale == 255, jnp.nan, power)


def shared_exponent(largest: Array, levels: str) -> Array:
    """The E8M0 scale of a block from its largest magnitude: `floor(log2 largest) - EXPONENT`, stored plus 127, uint8.

    0 for a block of zeros. Read off the bits of the float32, so exact.
    """
    bits = lax.bitcast_convert_type(largest.astype(jnp.float32), jnp.int32)
    return jnp.where(largest > 0, jnp.clip((bits >> MANTISSA) - EXPONENT[levels], 0, 254), 0).astype(jnp.uint8)


def nearest_exponent(scale: Array) -> Array:
    """The E8M0 scale nearest to a float32 one, uint8; 0 for zero."""
    found = jnp.clip(_rounded_exponent(scale.astype(jnp.float32)) + BIAS, 0, 254)
    return jnp.where(scale > 0, found, 0).astype(jnp.uint8)


def is_integer(x: Array | jax.ShapeDtypeStruct) -> bool:
    """Whether an array holds integers."""
    return jnp.issubdtype(x.dtype, jnp.integer)
