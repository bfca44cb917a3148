"""What the arrays of a quantized matrix mean."""

from collections.abc import Iterator
from typing import NamedTuple

import jax.numpy as jnp

from spartax.kernels import bits as bits_kernel
from spartax.kernels import levels as number_formats
from spartax.records import Array

# Products of int8 rows and codes whose sum is sure to fit in int32: 128 * 128 * EXACT < 2**31, and 128 * 255 * EXACT
# with zero points. Multiples of 1024, which end no cell of codes and no tile.
EXACT, EXACT_WITH_ZEROS = 127 * 1024, 64 * 1024


def exact_length(zero: bool) -> int:
    """How many products of codes int32 adds up exactly, whatever the codes, with or without zero points."""
    return EXACT_WITH_ZEROS if zero else EXACT


class Form(NamedTuple):
    """The static half of a matrix `w[o, k] = (value(code[o, k]) - zero[o, group of k]) * scale[o, group of k]`.

    Attributes:
      length: codes in a row, K.
      bits: 8: codes are int8 `[O, K]`; below: uint8 `[O, bytes]`, each row a bit stream (`kernels.bits`).
      low: below 8 bits, what is stored is `code - low`.
      levels: number format of the codes.
    """

    length: int
    bits: int = 8
    low: int = 0
    levels: str = "integer"

    @property
    def cell(self) -> int:
        """Codes in a cell of whole bytes."""
        return 1 if self.bits == 8 else bits_kernel.cell(self.bits)[0]

    def pieces(self, data: Array, most: int) -> Iterator[tuple[slice, Array, "Form"]]:
        """A row `most` codes (a multiple of 8) at a time: which columns of x they meet, their data, what that means."""
        for start in range(0, self.length, most):
            form = self._replace(length=min(most, self.length - start))
            low, width = start * self.bits // 8, -(-form.length // self.cell) * self.cell * self.bits // 8
            yield slice(start, start + form.length), data[:, low : low + width], form

    def in_order(self, groups: int) -> bool:
        """Whether cells and groups do not line up, so that the codes of a row must be put in order."""
        return groups > 1 and (self.length // groups) % self.cell != 0

    def columns(self, x: Array, groups: int) -> list[Array]:
        """The columns of x `[M, K]` that meet each plane of codes, `[M, ceil(K / cell)]`."""
        if self.cell == 1 or self.in_order(groups):
            return [x]
        x = jnp.pad(x, ((0, 0), (0, -self.length % self.cell)))
        return [x[:, i :: self.cell] for i in range(self.cell)]

    def planes(self, data: Array, groups: int) -> list[Array]:
        """The codes of some rows, int8, plane by plane (one plane in order, if they must be)."""
        if self.bits == 8:
            return [data]
        if self.in_order(groups):
            found = [bits_kernel.unpack_bits(data, self.bits, -1, self.length)]
        else:
            found = bits_kernel.planes(data, self.bits)
        return [plane.astype(jnp.int8) + jnp.int8(self.low) for plane in found]

    def weights(self, data: Array, scale: Array, zero: Array | None) -> list[Array]:
        """The rows as float32, plane by plane, with their scales and zero points."""
        return [self._scaled(p, scale, zero) for p in self.planes(data, scale.shape[1])]

    def _scaled(self, plane: Array, scale: Array, zero: Array | None) -> Array:
        rows, groups = scale.shape
        values = number_formats.decode(plane, self.levels).reshape(rows, groups, -1)
        if zero is not None:
            values = values - zero.astype(jnp.float32)[:, :, None]
        return (values * scale.astype(jnp.float32)[:, :, None]).reshape(rows, -1)
