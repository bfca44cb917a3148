"""Rows: everything that one input entry feeds."""

from spartax.prune.patterns._units import Units, reduction
from spartax.records import Pattern


def rows(reduce: str = "mean") -> Pattern:
    """Keeps whole rows of the matrix `[inputs, outputs]`: all weights that read one input entry.

    Of a convolution, a row is one position (h, w) of one input feature; `channels("inputs")` takes all positions of a
    feature together. `keep` counts entries, as in `block`.

    Args:
      reduce: score of a row: the `"mean"` or the `"sum"` of its entries'.

    Raises:
      ValueError: another reduction.
    """
    return Units(lambda inputs, outputs, spatial: (1, outputs), reduction(reduce))
