"""Powers of two: products become shifts."""

from spartax import checks
from spartax.quantize.grids.integer import integer
from spartax.quantize.records import Grid

BITS = (2, 3, 4, 5)


def power_of_two(bits: int = 4, group: int | None = None, channel: bool = True, scale_dtype: str = "float32") -> Grid:
    """Zero and plus or minus 1, 2, 4, ... `2**(2**(bits - 1) - 2)`, times a scale: a weight is a sign and a shift.

    A code c stands for `sign(c) * 2**(|c| - 1)`, zero is code 0. Rounding is to the nearest level, not to the nearest
    exponent (Incremental network quantization, arXiv 1702.03044, which trains such weights).

    Args:
      bits: 2 to 5: from 1 to 15 powers of two.
      group: entries that share a scale, along the input-feature axis; None: all of an output channel, or of the weight.
      channel: one scale for each output or, without groups, one for the whole weight.
      scale_dtype: "float32", "float16" or "bfloat16".

    Raises:
      ValueError: a bad value; groups that span output channels.
    """
    checks.one_of("bits", bits, BITS)
    return integer(bits, group, channel, scale_dtype=scale_dtype)._replace(levels="power_of_two")
