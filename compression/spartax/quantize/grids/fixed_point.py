"""Fixed point: one step for every weight, a power of two."""

from spartax import checks
from spartax.quantize.records import Grid


def fixed_point(word: int = 8, fraction: int = 6) -> Grid:
    """Fixed-point numbers <b, f>: `w = clip(round(w * 2**f), -2**(b-1), 2**(b-1) - 1) * 2**-f`, halves to even.

    The step is part of the grid and every weight has the same, so that sums need no scales. Numbers out of range
    saturate. (Hardware tools often round halves up: where `w * 2**f` ends in exactly .5 they may differ by one step.)

    Args:
      word: b, 2 to 8 bits with the sign.
      fraction: f, bits after the point, -32 to 32; it may be negative or exceed the word.

    Raises:
      ValueError: a bad value.
    """
    checks.one_of("word", word, (2, 3, 4, 5, 6, 7, 8))
    checks.positive_int("fraction", fraction, least=-32)
    checks.in_range("fraction", fraction, -32, 32)
    top = 2 ** (word - 1) - 1
    return Grid(word, (-top - 1, top), channel=False, step=2.0**-fraction)
