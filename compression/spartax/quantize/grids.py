"""Grids: how many bits a code has, and which entries share a scale. And the kinds of plugs that fill them."""

from collections.abc import Callable
from typing import NamedTuple

from spartax import checks
from spartax.arrays import quantized
from spartax.records import Array, Evidence, Layout, Path

BITS = (2, 3, 4, 5, 6, 7, 8)
SCALES = ("float32", "float16", "bfloat16")


class Grid(NamedTuple):
    """Integer codes and the blocks that share a scale; make one with `integer`.

    Attributes:
      bits: 2 to 8.
      group: entries of a block along the input-feature axis, or None for whole axes.
      channel: whether every output has its own scale.
      symmetric: whether zero is code 0; otherwise each block has an integer zero point.
      scale_dtype: floating dtype of the scales.
    """

    bits: int
    group: int | None
    channel: bool
    symmetric: bool
    scale_dtype: str

    @property
    def low(self) -> int:
        """Smallest code that storage must hold, `-2**(bits - 1)`; a symmetric grid never uses it."""
        return -(2 ** (self.bits - 1))

    @property
    def codes(self) -> tuple[int, int]:
        """Smallest and largest code in use."""
        return (self.low + 1 if self.symmetric else self.low), 2 ** (self.bits - 1) - 1

    def scale_shape(self, shape: tuple[int, ...], layout: Layout) -> tuple[int, ...]:
        """One scale for each block of a weight of this shape; every layer of a stack has its own.

        Raises:
          ValueError: the group does not divide the input-feature axis.
        """
        own = set(layout.stack) | (set(layout.outputs) if self.channel else set())
        if self.group is None:
            return tuple(n if axis in own else 1 for axis, n in enumerate(shape))
        axis = layout.inputs[-1] if layout.inputs else 0
        if shape[axis] % self.group:
            raise ValueError(
                f"group must divide the input-feature axis, which has {shape[axis]} entries; got group={self.group}. "
                "Exclude this weight by the rule, or use another group (None: one scale for each output)."
            )
        return tuple(n // self.group if a == axis else n for a, n in enumerate(shape))


def integer(
    bits: int = 4,
    group: int | None = None,
    channel: bool = True,
    symmetric: bool = True,
    scale_dtype: str = "float32",
) -> Grid:
    """A grid of integers: `w = (code - zero) * scale`.

    Symmetric codes lie in [-(2**(bits-1) - 1), 2**(bits-1) - 1] with no zero point; asymmetric ones in
    [-2**(bits-1), 2**(bits-1) - 1] with an int8 zero point, so that the real number zero is always a code.

    Args:
      bits: 2 to 8; below 8 the codes are packed at their true width.
      group: entries that share a scale: so many neighbours along the input-feature axis (`in` of a Dense kernel, `I` of
        a convolution inside each (h, w, o)). None: all entries of an output channel, or of the weight.
      channel: one scale for each output (the default) or, without groups, one for the whole weight.
      symmetric: see above.
      scale_dtype: "float32", "float16" or "bfloat16".

    Raises:
      ValueError: a bad value; groups that span output channels.
    """
    checks.one_of("bits", bits, BITS)
    checks.one_of("scale_dtype", scale_dtype, SCALES)
    if group is not None:
        checks.positive_int("group", group)
        if not channel:
            raise ValueError("channel must be True when group is given: a group lies inside one output channel.")
    return Grid(bits, group, bool(channel), bool(symmetric), scale_dtype)


class Part(NamedTuple):
    """One float array that is quantized, and what is known of it.

    Attributes:
      path: path of the weight it belongs to.
      layout: its own axes (a factor of a `LowRank` has other axes than the weight).
      evidence: of the whole run.
    """

    path: Path
    layout: Layout
    evidence: Evidence


class Scales(NamedTuple):
    """Scale and zero point of every block.

    Attributes:
      scale: positive, of `grid.scale_shape` and `grid.scale_dtype`.
      zero: int8 of the same shape, inside the codes; None for a symmetric grid.
    """

    scale: Array
    zero: Array | None


Fit = Callable[[Array, Grid, Part], Scales]  # scales of a float array, one for each block of `grid.scale_shape`
Round = Callable[[Array, Scales, Grid, Part], Array]  # int8 codes of a float array, inside `grid.codes`


class Calibration(NamedTuple):
    """Which scale each block gets.

    Attributes:
      needs: fields of the evidence that must be there.
      fit: the function.
    """

    needs: frozenset[str]
    fit: Fit


class Rounding(NamedTuple):
    """Which code each entry gets.

    Attributes:
      needs: fields of the evidence that must be there.
      round: the function.
    """

    needs: frozenset[str]
    round: Round


def over_blocks(reduce: Callable[..., Array], weight: Array, scale_shape: tuple[int, ...]) -> Array:
    """`reduce(x, axis=...)` (such as `jnp.max`) over every block: weight `[...]` -> `scale_shape`."""
    split = weight.reshape(quantized.blocks(weight.shape, scale_shape))
    return reduce(split, axis=tuple(range(1, split.ndim, 2)))
