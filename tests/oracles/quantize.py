"""Slow, obvious NumPy versions of quantization: one block at a time."""

import itertools

import numpy as np


def blocks(shape, scale_shape):
    """The slices of each block, in row-major order of the scales."""
    steps = [n // few for n, few in zip(shape, scale_shape)]
    for at in itertools.product(*map(range, scale_shape)):
        yield at, tuple(slice(i * step, (i + 1) * step) for i, step in zip(at, steps))


def absmax(block, bits, symmetric):
    """(scale, zero) of one block, zero counted in signed codes."""
    if symmetric:
        return (np.abs(block).max() / (2 ** (bits - 1) - 1) or 1.0), 0
    low, high = min(block.min(), 0.0), max(block.max(), 0.0)
    scale = (high - low) / (2**bits - 1) or 1.0
    return scale, np.clip(np.round(-low / scale), 0, 2**bits - 1) - 2 ** (bits - 1)


def round_trip(weight, scale_shape, bits, symmetric):
    """(dense weight after quantization, codes, scales)."""
    out, codes, scales = np.zeros_like(weight), np.zeros(weight.shape, int), np.zeros(scale_shape)
    least = -(2 ** (bits - 1)) + symmetric
    for at, block in blocks(weight.shape, scale_shape):
        scale, zero = absmax(weight[block], bits, symmetric)
        codes[block] = np.clip(np.round(weight[block] / scale) + zero, least, 2 ** (bits - 1) - 1)
        out[block] = (codes[block] - zero) * scale
        scales[at] = scale
    return out, codes, scales
