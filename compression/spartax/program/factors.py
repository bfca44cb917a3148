"""How a reshape cuts and joins axes."""

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from spartax.program.units import Axes, Units

SINGLE = "an axis of one entry"


class Factors(NamedTuple):
    """Two shapes of one size cut at all their common and own boundaries.

    Attributes:
      sizes: of the pieces.
      old: for each axis of the old shape, its pieces, in order.
      new: the same of the new shape.
    """

    sizes: tuple[int, ...]
    old: tuple[tuple[int, ...], ...]
    new: tuple[tuple[int, ...], ...]


def factors(old: Sequence[int], new: Sequence[int]) -> Factors | None:
    """How a reshape cuts its axes, or None where the boundaries cross (`[6, 4]` seen as `[8, 3]`)."""
    if 0 in old:
        return None
    ends = sorted({math.prod(shape[:i]) for shape in (old, new) for i in range(len(shape) + 1)})
    if any(b % a for a, b in itertools.pairwise(ends)):
        return None

    def pieces(shape: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        bounds = [ends.index(math.prod(shape[:i])) for i in range(len(shape) + 1)]
        return tuple(tuple(range(a, b)) for a, b in itertools.pairwise(bounds))

    return Factors(tuple(b // a for a, b in itertools.pairwise(ends)), pieces(old), pieces(new))


def reshape(units: Units, eqn: Any, inputs: list[Axes]) -> list[Axes] | None:
    """An axis that is cut or joined is `Units.split` into its pieces; one that is not passes."""
    new = tuple(eqn.params["new_sizes"])
    cut = factors([len(a) for a in inputs[0]], new)
    if cut is None or eqn.params.get("dimensions"):
        return None
    pieces: dict[int, np.ndarray] = {p[0]: axis for p, axis in zip(cut.old, inputs[0]) if len(p) == 1}
    pieces |= {i: units.fresh(n) for i, n in enumerate(cut.sizes) if i not in pieces}
    for own, axis in zip(cut.old, inputs[0]):
        if len(own) > 1:
            units.split(axis, [pieces[i] for i in own])
    out = []
    for own, size in zip(cut.new, new):
        if len(own) == 1:
            out.append(pieces[own[0]])
        else:
            out.append(units.fresh(size) if own else units.fixed(size, SINGLE))
            if own:
                units.split(out[-1], [pieces[i] for i in own])
    return [tuple(out)]
