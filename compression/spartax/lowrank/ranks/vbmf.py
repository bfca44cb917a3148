"""VBMF: the rank that stands out of the noise, by the analytic solution of variational Bayes."""

from collections.abc import Callable

import numpy as np

from spartax.records import Evidence, Ranks, Weights


def vbmf() -> Ranks:
    """The rank of each matrix under empirical variational Bayesian matrix factorization with unknown noise variance.

    For singular values `s_i` of an L x M matrix, L <= M, it is how many have `s_i > sqrt(M v (1 + t)(1 + L / (M t)))`,
    `t = 2.5129 sqrt(L / M)`, `v` the noise variance that minimizes the free energy (Nakajima et al., Global analytic
    solution of fully-observed variational Bayesian matrix factorization, JMLR 14, 2013; for Tucker-2 Kim et al., arXiv
    1511.06530). It needs no tuning, compresses strongly, and wants fine-tuning afterwards. At least 1; of a stack of
    layers, the largest of its layers.
    """

    def choose(matrices: Weights, evidence: Evidence) -> dict[str, int]:
        del evidence
        return {name: max(_ranks(np.asarray(matrix, np.float64))) for name, matrix in matrices.items()}

    return choose


def _ranks(matrix: np.ndarray) -> list[int]:
    layers = matrix.reshape(-1, *matrix.shape[-2:])
    return [max(1, noise_and_rank(np.linalg.svd(m, compute_uv=False), m.shape)[1]) for m in layers]


def noise_and_rank(values: np.ndarray, shape: tuple[int, int]) -> tuple[float, int]:
    """(noise variance, rank) from the singular values, largest first, of a matrix of this shape."""
    rows, columns = sorted(shape)
    values = values[values > 0]
    if not len(values):
        return 0.0, 0
    ratio = rows / columns
    edge = (1 + (tau := 2.5129 * np.sqrt(ratio))) * (1 + ratio / tau)
    squares = values**2 / columns
    head = max(min(int(np.ceil(rows / (1 + ratio))) - 1, len(values)) - 1, 0)
    tail, high = squares[head + 1 :], squares.sum() / rows
    low = max(tail[0] / edge, tail.mean()) if len(tail) else 1e-12 * high
    variance = _least(lambda v: _free_energy(squares / v, ratio, edge), low, high)
    return variance, int(np.sum(squares > variance * edge))


def _free_energy(x: np.ndarray, ratio: float, edge: float) -> float:
    """The part of the free energy that depends on the noise; `x` are squared singular values in units of it."""
    noise, signal = x[x <= edge], x[x > edge]
    shifted = signal - (1 + ratio)
    tau = (shifted + np.sqrt(np.maximum(shifted**2 - 4 * ratio, 0))) / 2
    kept = signal - tau + np.log((tau + 1) / signal) + ratio * np.log(tau / ratio + 1)
    return float(np.sum(noise - np.log(noise)) + np.sum(kept))


def _least(function: Callable[[float], float], low: float, high: float) -> float:
    """The minimum between two positive numbers: a grid in the logarithm, made finer around its best point.

    A library's bounded search stops at an absolute tolerance far above the variance of small weights.
    """
    a, b = np.log(low), np.log(max(high, low * (1 + 1e-12)))
    for _ in range(8):
        grid = np.linspace(a, b, 41)
        best = int(np.argmin([function(float(np.exp(v))) for v in grid]))
        a, b = grid[max(best - 1, 0)], grid[min(best + 1, 40)]
    return float(np.exp((a + b) / 2))
