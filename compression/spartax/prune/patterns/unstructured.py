"""Unstructured: any entry may be zero."""

from typing import NamedTuple

from spartax.kernels import threshold
from spartax.records import Array, Layout, Pattern


def unstructured() -> Pattern:
    """Keeps the `keep` largest scores of the whole weight; ties go to the lowest flat index."""
    return _Entries()


class _Entries(NamedTuple):
    """The pattern; a value, so that its span can be asked for."""

    span: int = 1

    def __call__(self, score: Array, keep: int, layout: Layout) -> Array:
        del layout
        return threshold.top(score, keep)
