"""Golden numbers: deterministic inputs without random numbers, and results computed once in float64."""

import json
import pathlib

import numpy as np

NUMBERS = json.loads((pathlib.Path(__file__).parents[1] / "golden" / "compression.json").read_text())


def inputs():
    """(W [6, 16] with outputs first, X [16, 96] with one column per token)."""
    i, j = np.arange(6)[:, None], np.arange(16)[None]
    weight = np.sin(1 + 3.1 * i + 7.3 * j + 0.11 * i * j)
    j, k = np.arange(16)[:, None], np.arange(96)[None]
    wave = np.cos(0.5 * j + 0.37 * k) + 0.5 * np.sin(0.19 * j * k + 0.3) + 0.2 * np.cos(0.071 * (j + 1) ** 2 * k)
    x = wave * (1 + 0.25 * j)
    assert np.isclose(weight.sum(), 1.2375995)
    assert np.isclose(x.sum(), 16.7692560)
    return weight, x


def output_error(kernel):
    """Squared error of the output, for a kernel `[16, 6]` that stands for W."""
    weight, x = inputs()
    return float(np.sum(((weight - np.asarray(kernel, np.float64).T) @ x) ** 2))
