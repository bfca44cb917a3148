"""Binary: minus one and one."""

from spartax.quantize.grids.integer import integer
from spartax.quantize.records import Grid


def binary(group: int | None = None, channel: bool = True, scale_dtype: str = "float32") -> Grid:
    """Signs, stored at 1 bit: `w = scale * sign(w)`; zero is not a code, and goes to -scale.

    Without a calibration of your own the scale is that of least squares, the mean magnitude of the block (XNOR-Net,
    arXiv 1603.05279). A block of zeros has the scale 0 and stays zero.

    Args:
      group: entries that share a scale, along the input-feature axis; None: all of an output channel, or of the weight.
      channel: one scale for each output or, without groups, one for the whole weight.
      scale_dtype: "float32", "float16" or "bfloat16".

    Raises:
      ValueError: a bad value; groups that span output channels.
    """
    blocks = integer(2, group, channel, scale_dtype=scale_dtype)
    return blocks._replace(bits=1, codes=(0, 1), levels="binary", calibration="least_squares")
