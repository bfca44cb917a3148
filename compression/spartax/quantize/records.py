"""The records of quantization: a grid, the part of a weight it is put on, its scales, and the plugs that fill them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from spartax.kernels import levels as number_formats
from spartax.records import Array, Evidence, Layout, Path, Weights


class Grid(NamedTuple):
    """Which numbers there are (bits, codes, their levels), and which entries share a scale.

    Every file of `quantize/grids` makes one; roundings and calibrations read it through `codes.encode`, `codes.decode`
    and `ranges.from_range` and need not know the format.

    Attributes:
      bits: 1 to 8, the width of a stored code.
      codes: smallest and largest code in use.
      levels: number format of the codes, of `kernels.levels`: "integer" (a code is its value), "e2m1", ...
      group: entries of a block along the input-feature axis, or None for whole axes.
      channel: whether every output has its own scale.
      zero: dtype of the zero point of a block; None if there is none, and then zero is a code by itself (but for
        `binary`, which has no zero).
      scale_dtype: floating dtype of the scales, or "uint8" for shared exponents, `2 ** (scale - 127)`.
      step: the one scale that the grid has (`fixed_point`), or None if scales are free.
      divides: whether the group must divide the input axis; if not, its largest divisor up to the group is taken.
      calibration: name of the calibration that is taken when none is given.
    """

    bits: int
    codes: tuple[int, int]
    levels: str = "integer"
    group: int | None = None
    channel: bool = True
    zero: str | None = None
    scale_dtype: str = "float32"
    step: float | None = None
    divides: bool = True
    calibration: str = "absmax"

    @property
    def symmetric(self) -> bool:
        """Whether there are no zero points."""
        return self.zero is None

    @property
    def low(self) -> int:
        """Smallest code that storage must hold: a bit pattern starts at 0, a number at `-2**(bits - 1)`."""
        return -(2 ** (self.bits - 1)) if self.codes[0] < 0 else 0

    @property
    def largest(self) -> float:
        """Largest level of the codes: what a scale of 1 reaches on the positive side."""
        return number_formats.largest(self.levels, self.codes)

    def scale_shape(self, shape: tuple[int, ...], layout: Layout) -> tuple[int, ...]:
        """One scale for each block of a weight of this shape; every layer of a stack has its own.

        Raises:
          ValueError: the group does not divide the input-feature axis, nor a near one where any near one will do.
        """
        own = set(layout.stack) | (set(layout.outputs) if self.channel else set())
        if self.group is None:
            return tuple(n if axis in own else 1 for axis, n in enumerate(shape))
        axis = layout.inputs[-1] if layout.inputs else 0
        group = self.group if self.divides else _near(shape[axis], self.group)
        if shape[axis] % group:
            raise ValueError(
                f"group must divide the input-feature axis, which has {shape[axis]} entries; got group={self.group}. "
                "Exclude this weight by the rule, or use another group (None: one scale for each output)."
            )
        return tuple(n // group if a == axis else n for a, n in enumerate(shape))


def _near(length: int, group: int) -> int:
    """The largest divisor of `length` up to `group`; the group itself if there is none above half of it."""
    most = min(length, group)
    return next((n for n in range(most, most // 2, -1) if length % n == 0), group)


class Part(NamedTuple):
    """One float array that is quantized, and what is known of it.

    Attributes:
      path: path of the weight it belongs to.
      layout: its own axes (a factor of a `LowRank` has other axes than the weight).
      evidence: of the whole run.
      kept: bool mask of the entries that count, of the shape of the array, where a mask lies around it (the array is
        zero elsewhere); None if all do.
      index: which of the arrays inside the weight this is.
      alone: whether it is the whole weight, not a factor of it nor one of several terms.
    """

    path: Path
    layout: Layout
    evidence: Evidence
    kept: Array | None = None
    index: int = 0
    alone: bool = True


class Scales(NamedTuple):
    """Scale and zero point of every block.

    Attributes:
      scale: of `grid.scale_shape` and `grid.scale_dtype`; positive, but 0 for a block of zeros on a grid without zero.
      zero: of the same shape and of dtype `grid.zero`, int8 ones inside the codes; None for a symmetric grid.
    """

    scale: Array
    zero: Array | None


Fit = Callable[[Array, Grid, Part], Scales]  # scales of a float array, one for each block of `grid.scale_shape`
Round = Callable[[Array, Scales, Grid, Part], Array]  # int8 codes of a float array, inside `grid.codes`
Report = Callable[[Array, Scales, Grid, Part], tuple[Array, dict[str, Array]]]  # what `Round` gives, and scalars
Check = Callable[[Grid], None]  # ValueError for a grid that the plug does not apply to


class Calibration(NamedTuple):
    """Which scale each block gets.

    Attributes:
      needs: fields of the evidence that must be there.
      fit: the function.
      check: refuses grids it does not apply to; None if it applies to all.
    """

    needs: frozenset[str]
    fit: Fit
    check: Check | None = None


class Rounding(NamedTuple):
    """Which code each entry gets.

    Attributes:
      needs: fields of the evidence that must be there.
      round: the function.
      check: refuses grids it does not apply to; None if it applies to all.
      report: for roundings that have more to say of a weight: the codes, and numbers by name for `info`.
    """

    needs: frozenset[str]
    round: Round
    check: Check | None = None
    report: Report | None = None


Candidates = Mapping[Path, Sequence[Any]]  # the leaf that a weight becomes on each grid; `dense` gives its numbers
Losses = dict[Path, list[float]]  # what each of them costs


class Sensitivity(NamedTuple):
    """How much each weight loses on each grid; `mixed` makes the sum least under a budget.

    Attributes:
      needs: fields of the evidence that must be there.
      losses: `(weights, candidates, evidence) -> losses`, of each candidate in place of its weight, dense arrays.
      together: `(weights, replaced, evidence) -> float`, the same quantity of all weights replaced at once, which shows
        how far losses add up; None where the losses are scores that cannot be measured.
    """

    needs: frozenset[str]
    losses: Callable[[Weights, Candidates, Evidence], Losses]
    together: Callable[[Weights, Weights, Evidence], float] | None = None
