"""Ternary: minus one, zero and one."""

from spartax.quantize.grids.integer import integer
from spartax.quantize.records import Grid


def ternary(group: int | None = None, channel: bool = True, scale_dtype: str = "float32") -> Grid:
    """Codes -1, 0 and 1, stored at 2 bits: `w = scale * code`.

    Without a calibration of your own, scale and codes are those of least squares, found by turns: entries below half
    the scale are zero, and the scale is the mean magnitude of the others (Ternary weight networks, arXiv 1605.04711).

    Args:
      group: entries that share a scale, along the input-feature axis; None: all of an output channel, or of the weight.
      channel: one scale for each output or, without groups, one for the whole weight.
      scale_dtype: "float32", "float16" or "bfloat16".

    Raises:
      ValueError: a bad value; groups that span output channels.
    """
    return integer(2, group, channel, scale_dtype=scale_dtype)._replace(calibration="least_squares")
