"""Integer: codes that are evenly spaced."""

from spartax import checks
from spartax.quantize.records import Grid

BITS = (2, 3, 4, 5, 6, 7, 8)
SCALES = ("float32", "float16", "bfloat16")
ZEROS = ("int8", "float16", "float32")


def integer(
    bits: int = 4,
    group: int | None = None,
    channel: bool = True,
    symmetric: bool = True,
    scale_dtype: str = "float32",
    zero_dtype: str = "int8",
) -> Grid:
    """A grid of integers: `w = (code - zero) * scale`.

    Symmetric codes lie in [-(2**(bits-1) - 1), 2**(bits-1) - 1] with no zero point; asymmetric ones in
    [-2**(bits-1), 2**(bits-1) - 1] with a zero point: an int8 one, so that the real number zero is always a code, or a
    float one, which may lie between codes or outside them.

    Args:
      bits: 2 to 8; below 8 the codes are packed at their true width.
      group: entries that share a scale: so many neighbours along the input-feature axis (`in` of a Dense kernel, `I` of
        a convolution inside each (h, w, o)). None: all entries of an output channel, or of the weight.
      channel: one scale for each output (the default) or, without groups, one for the whole weight.
      symmetric: see above.
      scale_dtype: "float32", "float16" or "bfloat16"; a scale beyond its range saturates.
      zero_dtype: "int8", "float16" or "float32", of an asymmetric grid.

    Raises:
      ValueError: a bad value; groups that span output channels.
    """
    checks.one_of("bits", bits, BITS)
    checks.one_of("scale_dtype", scale_dtype, SCALES)
    checks.one_of("zero_dtype", zero_dtype, ZEROS)
    if group is not None:
        checks.positive_int("group", group)
        if not channel:
            raise ValueError("channel must be True when group is given: a group lies inside one output channel.")
    top = 2 ** (bits - 1) - 1
    codes, zero = ((-top, top), None) if symmetric else ((-top - 1, top), zero_dtype)
    return Grid(bits, codes, group=group, channel=bool(channel), zero=zero, scale_dtype=scale_dtype)
