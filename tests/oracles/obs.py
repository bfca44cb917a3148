"""Optimal brain surgeon, slowly: every step inverts the matrix of the columns that are still free."""

import numpy as np

from tests.oracles import prune


def sparsegpt(matrices, moments, counts, block, damping=0.01):
    """Matrices [L, O, I] solved column by column; `counts` kept of each block over all of them. (weights, masks)."""
    w, inputs = np.array(matrices, np.float64), matrices.shape[-1]
    mask = np.zeros(w.shape, bool)
    damped = [h + damping * np.mean(np.diag(h)) * np.eye(inputs) for h in np.asarray(moments, np.float64)]
    # inverse of what is left from column j on, for every matrix
    left = [[np.linalg.inv(h[j:, j:]) for h in damped] for j in range(inputs)]
    for number, start in enumerate(range(0, inputs, block)):
        stop = min(start + block, inputs)
        pivots = np.array([[left[j][k][0, 0] for j in range(start, stop)] for k in range(len(w))])
        score = w[:, :, start:stop] ** 2 / pivots[:, None, :]
        mask[:, :, start:stop] = prune.top(score, counts[number])
        for j in range(start, stop):
            for k in range(len(w)):
                error = np.where(mask[k, :, j], 0, w[k, :, j]) / left[j][k][0, 0]
                w[k, :, j:] -= np.outer(error, left[j][k][0])
    return np.where(mask, w, 0), mask


def solved_rows(matrix, moments, mask):
    """The weights under this mask with the smallest output error: a least-squares problem for each row (exact OBS)."""
    best = np.zeros(matrix.shape)
    for row, kept in enumerate(np.asarray(mask)):
        best[row, kept] = np.linalg.solve(moments[np.ix_(kept, kept)], moments[kept] @ matrix[row])
    return best


def gptq(matrix, moments, scale, zero, codes, damping=0.01, order=None, kept=None):
    """Integer codes [O, I] of a matrix, column by column; `scale`, `zero` [O, I]; `codes` the smallest and largest."""
    w, inputs = np.array(matrix, np.float64), matrix.shape[1]
    order = np.arange(inputs) if order is None else np.asarray(order)
    kept = np.ones(w.shape, bool) if kept is None else kept
    damped = moments + damping * np.mean(np.diag(moments)) * np.eye(inputs)
    found = np.zeros(w.shape, int)
    for place, j in enumerate(order):
        free = order[place:]
        inverse = np.linalg.inv(damped[np.ix_(free, free)])
        wanted = np.where(kept[:, j], w[:, j], 0)
        found[:, j] = np.clip(np.round(wanted / scale[:, j]) + zero[:, j], *codes)
        value = np.where(kept[:, j], (found[:, j] - zero[:, j]) * scale[:, j], 0)
        w[:, free] -= np.outer((w[:, j] - value) / inverse[0, 0], inverse[0])
    return found
