"""Min-max: the whole range that calibration saw."""

from spartax.quantize.observers._observer import Observer


def min_max() -> Observer:
    """`[min(x, 0), max(x, 0)]`: nothing seen in calibration is clipped, one outlier widens every step."""
    return Observer(frozenset({"ranges"}), lambda seen, grid: (seen.low, seen.high))
