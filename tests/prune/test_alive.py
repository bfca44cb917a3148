"""Counts under what each weight may keep."""

import jax.numpy as jnp
import pytest

from spartax.prune.alive import alive, at_most


@pytest.mark.parametrize(
    ("counts", "most", "expected"),
    [
        ((100, 60), (20, 180), (20, 140)),  # 80 too many go where there is room
        ((100, 60), (200, 200), (100, 60)),
        ((150, 150), (20, 180), (20, 180)),  # all that may be kept is less than asked for
        ((0, 100), (0, 100), (0, 100)),
    ],
)
def test_two_weights(counts, most, expected):
    found = at_most(*(dict(zip("ab", n)) for n in (counts, most, (200, 200))))
    assert tuple(found.values()) == expected


def test_those_with_room_remove_less_by_one_factor():
    """80 are cut off `a`: `b` removes 30 instead of 60, `c` 50 instead of 100."""
    sizes = dict.fromkeys("abc", 200)
    assert at_most({"a": 100, "b": 140, "c": 100}, {"a": 20, "b": 200, "c": 200}, sizes) == {
        "a": 20,
        "b": 170,
        "c": 150,
    }


def test_minus_infinity_is_gone():
    assert alive({"w": jnp.array([[0.0, -jnp.inf], [-2.0, 3.0]]), "v": jnp.full(2, -jnp.inf)}) == {"w": 3, "v": 0}
