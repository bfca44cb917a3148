"""FP8: floats of eight bits."""

from spartax import checks
from spartax.kernels import levels as number_formats
from spartax.quantize.grids.integer import integer
from spartax.quantize.records import Grid


def fp8(levels: str = "e4m3", group: int | None = None, channel: bool = True, scale_dtype: str = "float32") -> Grid:
    """Floats of 8 bits times a scale: `w = scale * float(code)`; the code is the bit pattern, saturating (no infinity).

    FP8 formats for deep learning, arXiv 2209.05433.

    Args:
      levels: "e4m3" (4 bits of exponent, largest number 448) or "e5m2" (57344).
      group: entries that share a scale, along the input-feature axis; None: all of an output channel, or of the weight.
      channel: one scale for each output or, without groups, one for the whole weight.
      scale_dtype: "float32", "float16" or "bfloat16".

    Raises:
      ValueError: a bad value; groups that span output channels.
    """
    checks.one_of("levels", levels, tuple(number_formats.FLOATS))
    return integer(8, group, channel, scale_dtype=scale_dtype)._replace(codes=(-128, 127), levels=levels)
