"""AdaRound with gradients by hand and Adam written out (Nagel et al., arXiv 2004.10568)."""

import numpy as np


def codes(matrix, moments, scale, zero, ends, steps, lr, penalty):
    """Integer codes [O, I] of a matrix; `scale` and `zero` [O, 1]; `ends` the smallest and largest code."""
    w = np.array(matrix, np.float64)
    floor = np.clip(np.floor(w / scale) + zero, ends[0], ends[1] - 1)
    low = (floor - zero) * scale
    nearest = (np.clip(np.round(w / scale) + zero, *ends) - zero) * scale
    unit = np.sum((nearest - w) @ moments * (nearest - w)) / w.size
    share = (np.clip((w - low) / scale, 0, 1) + 0.1) / 1.2
    v = np.log(share / (1 - share))
    first, second = np.zeros_like(v), np.zeros_like(v)
    for step in range(steps):
        sigmoid = 1 / (1 + np.exp(-v))
        stretched = 1.2 * sigmoid - 0.1
        h = np.clip(stretched, 0, 1)
        slope = 2 * (low + h * scale - w) @ moments / unit * scale
        part = (step / steps - 0.2) / 0.8
        if part > 0:
            b = 20 - 18 * part
            slope -= penalty * b * np.abs(2 * h - 1) ** (b - 1) * np.sign(2 * h - 1) * 2
        gradient = slope * np.where((stretched > 0) & (stretched < 1), 1.2 * sigmoid * (1 - sigmoid), 0)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        v -= lr * first / (1 - 0.9 ** (step + 1)) / (np.sqrt(second / (1 - 0.999 ** (step + 1))) + 1e-8)
    return (floor + (1.2 / (1 + np.exp(-v)) - 0.1 >= 0.5)).astype(int)
