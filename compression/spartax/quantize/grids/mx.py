"""MX: small floats whose blocks share an exponent."""

from spartax import checks
from spartax.kernels import levels as number_formats
from spartax.quantize.grids.integer import integer
from spartax.quantize.records import Grid


def mx(levels: str = "e2m1", group: int = 32) -> Grid:
    """Floats of 4 or 8 bits in blocks that share a power of two, one byte (E8M0): `w = 2**(byte - 127) * float(code)`.

    OCP Microscaling formats, arXiv 2310.10537: MXFP4 is "e2m1", MXFP8 is "e4m3" or "e5m2". Zero is code 0. Numbers
    beyond the largest level saturate.

    Args:
      levels: "e2m1" (levels 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives), "e4m3" or "e5m2".
      group: entries that share an exponent, along the input-feature axis: the largest divisor of the axis up to this,
        which must be more than half of it (or of the axis).

    Raises:
      ValueError: a bad value; at use, an axis without such a divisor.
    """
    checks.one_of("levels", levels, tuple(number_formats.EXPONENT))
    checks.positive_int("group", group)
    bits, codes = (4, (0, 15)) if levels == "e2m1" else (8, (-128, 127))
    return integer(bits, group)._replace(codes=codes, levels=levels, scale_dtype="uint8", divides=False)
