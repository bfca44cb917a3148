"""One width for every weight of Double Rounding: every assignment is tried."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from spartax import quantize
from spartax.arrays import DoubleRounded

WIDTHS = (8, 6, 4, 2)
SIZES, TRACES = {"steep": 12, "even": 30, "flat": 18, "hollow": 12}, {"steep": 90.0, "even": 6.0, "flat": 1.0}
TRACES["hollow"] = -5.0
CODES = {path: np.random.default_rng(size).integers(-128, 128, (6, size // 6)) for path, size in SIZES.items()}


def store():
    at = lambda value: jnp.full((1, 1), value)  # noqa: E731
    return {p: DoubleRounded(jnp.asarray(c, jnp.int8), at(0.5), at(jnp.int8(4))) for p, c in CODES.items()}


def lost(path, bits):
    step = 2 ** (8 - bits)
    read = np.clip(np.round(CODES[path] / step), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1) * step
    return max(TRACES[path], 0) / (2 * SIZES[path]) * 0.25 * np.sum((read - CODES[path]) ** 2)


def test_no_assignment_within_the_budget_loses_less():
    losses = {path: dict(zip(WIDTHS, (lost(path, bits) for bits in WIDTHS))) for path in SIZES}
    params, budget = store(), 4.5 * sum(SIZES.values())
    every = [dict(zip(SIZES, bits)) for bits in itertools.product(WIDTHS, repeat=len(SIZES))]
    fits = [bits for bits in every if sum(SIZES[p] * b for p, b in bits.items()) <= budget]
    total = lambda bits: sum(losses[p][b] for p, b in bits.items())  # noqa: E731
    found = quantize.assign_widths(params, TRACES, 4.5)
    assert found in fits
    np.testing.assert_allclose(total(found), min(map(total, fits)))
    assert found["steep"] > found["flat"]
    switched = quantize.switch(params, found)
    assert {path: int(leaf.bits[0, 0]) for path, leaf in switched.items()} == found
    assert quantize.assign_widths(params, TRACES, 2) == dict.fromkeys(SIZES, 2)
    assert quantize.assign_widths(params, dict.fromkeys(SIZES, 1.0), 8) == dict.fromkeys(SIZES, 8)


def test_bad_arguments():
    for change, message in (
        ({"traces": {}}, "number of traces"),
        ({"traces": {"steep": np.inf}}, "traces holds NaN or infinite"),
        ({"traces": {"other": 1.0}}, "other"),
        ({"widths": ()}, "number of widths"),
        ({"widths": (8, 1)}, "widths must be one of"),
        ({"widths": (8, 6), "mean_bits": 5}, r"mean_bits must be in \[6, 8\]"),
        ({"params": {"steep": jnp.ones((2, 2))}, "traces": {"steep": 1.0}}, "steep holds no weight of double_rounding"),
    ):
        with pytest.raises(ValueError, match=message):
            quantize.assign_widths(**{"params": store(), "traces": TRACES, "mean_bits": 4, **change})
