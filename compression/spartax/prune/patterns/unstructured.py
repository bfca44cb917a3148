"""Unstructured: any entry may be zero."""

from spartax.kernels import threshold
from spartax.records import Array, Layout, Pattern


def unstructured() -> Pattern:
    """Keeps the `keep` largest scores of the whole weight; ties go to the lowest flat index."""
    return _mask


def _mask(score: Array, keep: int, layout: Layout) -> Array:
    del layout
    return threshold.top(score, keep)
