"""Sensitivity: ranks by what they cost the network's output, chosen exactly under a byte budget."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from spartax import catalog, checks, knapsack
from spartax.lowrank.ranks.byte_budget import affordable, one_each, prices, spend
from spartax.records import Evidence, Objective, Ranks, Weights

LEAST = "the smallest ranks of shares take {:.4f} of the dense bytes"


def sensitivity(ratio: float = 0.5, shares: Sequence[float] = (0.05, 0.1, 0.2, 0.3, 0.45)) -> Ranks:
    """The ranks of least total distortion under `ratio` times the dense bytes of all weights.

    For each weight alone and each rank `r = share * min(m, n)` the distortion `mean (z - z_r)^2` of the logits on the
    calibration batches is measured with its truncated SVD in place; distortions add up to second order, so a dynamic
    programme over bytes chooses one of these ranks, or dense, for every weight. What it leaves of the budget then buys
    single directions, those first that lower the distortion most per byte. It is the allocation by rate and
    distortion of "Efficient Joint Optimization of Layer-Adaptive Weight Pruning in Deep Neural Networks" (S020), for
    ranks.

    Args:
      ratio: share of the dense bytes of the selected weights, in [0, 1].
      shares: ranks to measure, as shares of the smaller side, each in (0, 1).

    Raises:
      ValueError: an option out of range; at use, no batches with values, a factorization with several ranks a weight,
        a budget below the smallest ranks measured, or an error in the place of a weight (`lowrank.compensate`).
    """
    checks.in_range("ratio", ratio, 0.0, 1.0)
    for share in shares:
        checks.in_range("shares", share, 1e-9, 1.0, open_high=True)

    return _Measured(float(ratio), tuple(shares))


class _Measured(NamedTuple):
    """The rule; a value, so that what it needs can be asked for."""

    ratio: float
    shares: tuple[float, ...]

    @property
    def needs(self) -> frozenset[str]:
        """Fields of the evidence."""
        return frozenset({"objective", "originals"})

    def __call__(self, matrices: Weights, evidence: Evidence) -> dict[str, int]:
        objective, originals = catalog.need("objective", evidence), catalog.need("originals", evidence)
        one_each(matrices, evidence, "sensitivity")
        if any(isinstance(jax.tree.leaves(batch)[0], jax.ShapeDtypeStruct) for batch in objective.batches):
            raise ValueError("batches must hold values: sensitivity measures the output of the network on them.")
        fixed, price, dense = prices(matrices, evidence)
        bytes_of = lambda path, rank: fixed[path] + rank * price[path]  # noqa: E731
        shares = {path: _ranks(matrix, self.shares) for path, matrix in matrices.items()}
        options = {path: [rank for rank in own if bytes_of(path, rank) < dense[path]] for path, own in shares.items()}
        losses = {path: _losses(path, m, options[path], objective, originals) for path, m in matrices.items()}
        costs = {path: [*(bytes_of(path, rank) for rank in own), dense[path]] for path, own in options.items()}
        least = {path: min(cost) for path, cost in costs.items()}
        budget = affordable(self.ratio, least, sum(dense.values()), LEAST) + sum(least.values())
        picked = knapsack.choose([losses[p] for p in matrices], [costs[p] for p in matrices], budget)
        start = {path: options[path][i] for path, i in zip(matrices, picked) if i < len(options[path])}
        gains = {path: _gains(m, options[path], losses[path]) for path, m in matrices.items()}
        return spend(gains, price, dense, self.ratio, start=start, fixed=fixed)


def _ranks(matrix: np.ndarray, shares: Sequence[float]) -> list[int]:
    """The ranks of these shares, smallest first."""
    return sorted({max(1, round(share * min(matrix.shape[-2:]))) for share in shares})


def _gains(matrix: np.ndarray, ranks: list[int], losses: list[float]) -> np.ndarray:
    """By how much each direction lowers the distortion, which is linear between two ranks that were measured."""
    full = min(matrix.shape[-2:])
    return -np.diff(np.interp(np.arange(full + 1), [*ranks, full], losses))


def _losses(path: str, matrix: np.ndarray, ranks: list[int], objective: Objective, originals: Weights) -> list[float]:
    """Distortion of the logits at every rank, which never grows with the rank; none for the dense weight."""
    u, s, vt = np.linalg.svd(np.asarray(matrix, np.float64), full_matrices=False)
    near = [(u[..., :, :r] * s[..., None, :r]) @ vt[..., :r, :] for r in ranks]
    lost = np.zeros(len(ranks))
    for batch in objective.batches:
        x = batch[0] if isinstance(batch, tuple | list) else batch
        whole = np.asarray(objective.logits(dict(originals), x))
        for i, product in enumerate(near):
            weight = product.reshape(originals[path].shape).astype(originals[path].dtype)
            lost[i] += np.mean((np.asarray(objective.logits({**originals, path: weight}, x)) - whole) ** 2)
    return [*np.maximum.accumulate(lost[::-1])[::-1].tolist(), 0.0]
