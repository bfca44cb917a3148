"""NF4: sixteen quantiles of a normal distribution."""

from spartax.quantize.grids.integer import integer
from spartax.quantize.records import Grid


def nf4(group: int | None = 64, scale_dtype: str = "float32") -> Grid:
    """Sixteen levels in [-1, 1], denser near zero, times a scale (QLoRA, arXiv 2305.14314); zero is a level.

    Args:
      group: entries that share a scale, along the input-feature axis: the largest divisor of the axis up to this, which
        must be more than half of it (or of the axis); None: one scale for each output.
      scale_dtype: "float32", "float16" or "bfloat16".

    Raises:
      ValueError: a bad value; at use, an axis without such a divisor.
    """
    return integer(4, group, scale_dtype=scale_dtype)._replace(codes=(0, 15), levels="nf4", divides=False)
