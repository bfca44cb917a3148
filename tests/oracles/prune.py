"""Slow, obvious NumPy versions of what pruning does."""

import itertools

import numpy as np


def top(score, k):
    """Mask of the k largest entries; Python sorts stably, so ties go to the lowest flat index."""
    order = sorted(range(score.size), key=lambda i: -score.flat[i])
    mask = np.zeros(score.size, bool)
    mask[order[:k]] = True
    return mask.reshape(score.shape)


def pooled_counts(scores, k):
    """How many of the k largest entries of all arrays lie in each; ties in the order of the arrays."""
    labelled = [(value, i) for i, s in enumerate(scores) for value in s.ravel()]
    kept = sorted(labelled, key=lambda pair: -pair[0])[:k]
    return [sum(1 for _, i in kept if i == layer) for layer in range(len(scores))]


def n_of_m(score, n, m, axis):
    """In every run of m entries along the axis, the n largest; ties to the lower index."""
    mask = np.zeros(score.shape, bool)
    lines = [range(s) if a != axis else [None] for a, s in enumerate(score.shape)]
    for at in itertools.product(*lines):
        for start in range(0, score.shape[axis], m):
            places = [tuple(i if a is None else a for a in at) for i in range(start, start + m)]
            for place in sorted(places, key=lambda p: -score[p])[:n]:
                mask[place] = True
    return mask


def per_output(score, k, inputs):
    """The k // O best of each output unit; the rest one by one to the units with the best next entry."""
    mask = np.zeros(score.shape, bool)
    lines = {}
    for place in np.ndindex(score.shape):
        lines.setdefault(tuple(i for a, i in enumerate(place) if a not in inputs), []).append(place)
    ranked = [sorted(line, key=lambda p: -score[p]) for line in lines.values()]
    for line in ranked:
        for place in line[: k // len(ranked)]:
            mask[place] = True
    following = sorted(line[k // len(ranked)] for line in ranked) if k % len(ranked) else []
    for place in sorted(following, key=lambda p: -score[p])[: k % len(ranked)]:
        mask[place] = True
    return mask


def erk(shapes, density):
    """Densities found by bisection on eps: the total grows with it."""
    raw = [sum(s) / np.prod(s) for s in shapes]
    sizes = [np.prod(s) for s in shapes]
    low, high = 0.0, 1e9
    for _ in range(200):
        eps = (low + high) / 2
        total = sum(min(1.0, eps * p) * n for p, n in zip(raw, sizes))
        low, high = (eps, high) if total < density * sum(sizes) else (low, eps)
    return [min(1.0, eps * p) for p in raw]
