"""Columns: everything that one output unit reads."""

from spartax.prune.patterns._units import Units, reduction
from spartax.records import Pattern


def columns(reduce: str = "mean") -> Pattern:
    """Keeps whole columns of the matrix `[inputs, outputs]`: all weights that lead to one output unit.

    `keep` counts entries, as in `block`.

    Args:
      reduce: score of a column: the `"mean"` or the `"sum"` of its entries'.

    Raises:
      ValueError: another reduction.
    """
    return Units(lambda inputs, outputs, spatial: (inputs, 1), reduction(reduce))
