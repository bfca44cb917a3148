import jax
import numpy as np
import pytest

from spartax import data

DIGITS = data.digits("train")._replace(x=np.arange(1253, dtype=np.float32).reshape(-1, 1, 1, 1))


def test_the_parts_share_no_example_and_are_the_whole():
    rest, held = data.hold_out(DIGITS, 200, jax.random.key(0))
    first, second = rest.x.ravel().astype(int), held.x.ravel().astype(int)
    assert (len(rest.y), len(held.y)) == (1053, 200)
    assert sorted([*first, *second]) == list(range(1253))
    assert not np.array_equal(second, np.arange(200))
    assert not np.array_equal(second, data.hold_out(DIGITS, 200, jax.random.key(1))[1].x.ravel())
    np.testing.assert_array_equal(rest.y, DIGITS.y[first])
    np.testing.assert_array_equal(held.y, DIGITS.y[second])
    assert (rest.name, held.name) == ("digits/train, rest", "digits/train, held out")


@pytest.mark.parametrize("count", [0, 1253])
def test_neither_part_may_be_empty(count):
    with pytest.raises(ValueError, match="count must be"):
        data.hold_out(DIGITS, count, jax.random.key(0))
