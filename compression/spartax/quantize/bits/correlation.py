"""Correlation: how far a layer's output keeps its canonical correlation with itself (CPTQuant's CMPQ)."""

import numpy as np

from spartax import catalog, checks
from spartax.arrays import dense, rows
from spartax.quantize.bits._tables import tabulate
from spartax.quantize.records import Candidates, Losses, Sensitivity
from spartax.records import Evidence, Weights


def correlation(variance: float = 0.99) -> Sensitivity:
    """Loss `1 - mean canonical correlation` of the outputs `x W` and `x W_o` of a layer.

    Canonical correlations are the singular values of `S11^-1/2 S12 S22^-1/2`, of covariances that follow from those of
    the input, `S12 = W^T C W_o`, so that no output is ever kept; both sides are first reduced to the directions that
    hold `variance` of theirs. They do not change under invertible maps of an output: a layer with no fewer outputs than
    inputs tells nothing but by that reduction, and a mere change of scale is not seen. After the metric of Nanda et
    al., CPTQuant (S043), whose abstract alone is public.

    Args:
      variance: share that is kept, in (0, 1].

    Raises:
      ValueError: `variance` out of range; at use, no batches with values, inputs that are always zero.
    """
    checks.in_range("variance", variance, 1e-9, 1.0)

    def losses(weights: Weights, candidates: Candidates, evidence: Evidence) -> Losses:
        moments, means = catalog.need("moments", evidence), catalog.need("means", evidence)
        for path in weights:
            checks.nonzero_layers(f"correlation: the input of {path}", moments[path], moments[path].ndim - 2)
        inputs = {path: _covariance(moments[path], means[path]) for path in weights}
        matrix = lambda path, w: np.asarray(rows.to_rows(w, evidence.layouts[path]), np.float64)  # noqa: E731
        full = {path: matrix(path, w) for path, w in weights.items()}
        lost = lambda path, leaf: _lost(full[path], matrix(path, dense(leaf)), inputs[path], variance)  # noqa: E731
        return tabulate(candidates, lost)

    return Sensitivity(frozenset({"moments", "means"}), losses)


def _covariance(moments: np.ndarray, means: np.ndarray) -> np.ndarray:
    """`[*stack, I, I]`."""
    mean = np.asarray(means, np.float64)
    return np.asarray(moments, np.float64) - mean[..., :, None] * mean[..., None, :]


def _lost(full: np.ndarray, near: np.ndarray, inputs: np.ndarray, variance: float) -> float:
    """Mean over the layers of a stack."""
    inputs = inputs.reshape(-1, *inputs.shape[-2:])
    pairs = zip(full.reshape(-1, *full.shape[-2:]), near.reshape(-1, *near.shape[-2:]), inputs, strict=True)
    return float(np.mean([1 - mean_correlation(a @ c @ a.T, a @ c @ b.T, b @ c @ b.T, variance) for a, b, c in pairs]))


def mean_correlation(own: np.ndarray, cross: np.ndarray, other: np.ndarray, variance: float = 0.99) -> float:
    """Mean canonical correlation of two variables, from their covariances `[n, n]`, `[n, m]`, `[m, m]`.

    Over as many directions as the larger side keeps: one that the other side has lost correlates with nothing.
    """
    left, right = _whitener(own, variance), _whitener(other, variance)
    kept = max(left.shape[1], right.shape[1])
    if not kept:
        return 1.0
    values = np.linalg.svd(left.T @ cross @ right, compute_uv=False)
    return float(np.minimum(values, 1.0).sum() / kept)


def _whitener(covariance: np.ndarray, variance: float) -> np.ndarray:
    """Columns `v / sqrt(value)` of the largest eigenvalues that hold this share of their sum; none of a constant."""
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
    total = np.cumsum(values)
    count = int(np.searchsorted(total, variance * total[-1] * (1 - 1e-12))) + 1 if total[-1] > 0 else 0
    count = min(count, int(np.sum(values > 1e-10 * max(values[0], 1e-300))))
    return vectors[:, :count] / np.sqrt(values[:count])
