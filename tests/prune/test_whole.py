"""Counts in whole units."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spartax.prune.whole import whole


def test_known_answer():
    """7.5, 2.5 and 2 units; 30 entries at most: the larger remainder of equal ones goes first."""
    counts, units, sizes = {"a": 15, "b": 5, "c": 10}, {"a": 2, "b": 2, "c": 5}, {"a": 20, "b": 20, "c": 20}
    assert whole(counts, units, sizes) == {"a": 16, "b": 4, "c": 10}


def test_what_keeps_anything_keeps_a_unit_and_the_others_pay():
    assert whole({"a": 1, "b": 39}, {"a": 10, "b": 5}, {"a": 50, "b": 50}) == {"a": 10, "b": 30}
    assert whole({"a": 0, "b": 39}, {"a": 10, "b": 5}, {"a": 50, "b": 50}) == {"a": 0, "b": 35}


def test_a_dense_weight_stays_dense():
    assert whole({"a": 9, "b": 4}, {"a": 4, "b": 2}, {"a": 9, "b": 8}) == {"a": 9, "b": 4}


def test_one_unit_of_each_is_too_much():
    with pytest.raises(ValueError, match="leaves 5 of 100 entries, but one unit of each weight takes 20"):
        whole({"a": 4, "b": 1}, {"a": 10, "b": 10}, {"a": 50, "b": 50})


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.data())
def test_never_more_and_less_than_a_unit_below(data):
    layers = data.draw(st.integers(1, 5))
    units = {i: data.draw(st.integers(1, 6)) for i in range(layers)}
    sizes = {i: units[i] * data.draw(st.integers(1, 9)) for i in range(layers)}
    counts = {i: data.draw(st.integers(0, sizes[i])) for i in range(layers)}
    if sum(units[i] for i in counts if counts[i]) > sum(counts.values()):
        return
    found = whole(counts, units, sizes)
    assert all(k % units[i] == 0 and k <= sizes[i] and (k > 0) == (counts[i] > 0) for i, k in found.items())
    slack = sum(counts.values()) - sum(found.values())
    open_ = [units[i] for i in counts if counts[i] > 0 and found[i] < sizes[i]]
    assert slack >= 0
    assert slack < max(open_, default=1) * len(counts)
    if all(counts[i] % units[i] == 0 for i in counts):
        assert found == counts
    assert np.all([type(k) is int for k in found.values()])
