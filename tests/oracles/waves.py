"""Deterministic inputs of golden numbers that need no random generator."""

import numpy as np


def wave(*shape, a=1.0, b=0.7):
    """`sin(a + 1.3 i) + cos(b i^2) / 2` over the flat index, float64."""
    i = np.arange(np.prod(shape))
    return (np.sin(a + 1.3 * i) + 0.5 * np.cos(b * i**2)).reshape(shape)
