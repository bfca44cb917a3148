"""Byte budget: all layers share one number of bytes, spent where it retains most."""

import numpy as np

from spartax import checks
from spartax.lowrank.matrices import spectra
from spartax.records import Evidence, Path, Ranks, Weights


def byte_budget(ratio: float = 0.5) -> Ranks:
    """Maximises the retained `sum sigma_i^2` of all weights together under `ratio` times their dense bytes.

    Every weight starts at rank 1 (or dense, if that is smaller); then the direction with the most `sigma^2` per byte,
    `sigma^2 / (width (m + n))`, is bought again and again, and a weight whose next direction would make its factors as
    large as itself becomes dense for the difference. The budget is never exceeded. For one m x n weight this is
    `r = floor(ratio m n / (m + n))`.

    Args:
      ratio: share of the dense bytes of the selected weights, in [0, 1].

    Raises:
      ValueError: `ratio` outside [0, 1]; at use, a budget too small for rank 1 everywhere, or a factorization with
        several ranks a weight.
    """
    checks.in_range("ratio", ratio, 0.0, 1.0)

    def choose(matrices: Weights, evidence: Evidence) -> dict[Path, int]:
        del evidence
        several = sorted({name.split("#")[0] for name in matrices if "#" in name})
        if several:
            raise ValueError(f"{several[0]}: a byte budget prices one matrix a weight; use energy, fixed or vbmf here.")
        dense = {p: m.size * m.dtype.itemsize for p, m in matrices.items()}
        price = {p: dense[p] * sum(m.shape[-2:]) // (m.shape[-2] * m.shape[-1]) for p, m in matrices.items()}
        return spend(spectra(matrices), price, dense, int(ratio * sum(dense.values())))

    return choose


def spend(
    gains: dict[Path, np.ndarray], price: dict[Path, int], dense: dict[Path, int], budget: int
) -> dict[Path, int]:
    """Ranks of the weights that are factorized; one left out is dense.

    Args:
      gains: squared singular values of each weight, largest first.
      price: bytes of one direction of each weight.
      dense: bytes of each dense weight.
      budget: bytes of all together.

    Raises:
      ValueError: the budget is too small for rank 1 everywhere.
    """
    ranks = {path: 1 for path in gains if price[path] < dense[path]}
    left = budget - sum(min(price[path], dense[path]) for path in gains)
    if left < 0:
        least = (budget - left) / sum(dense.values())
        raise ValueError(f"ratio is too small: rank 1 for every weight takes {least:.4f} of the dense bytes.")
    order = [(-gain / price[path], i, path) for path in list(ranks) for i, gain in enumerate(gains[path]) if i]
    for _, i, path in sorted(order):
        if ranks.get(path) != i:
            continue  # dense by now, or an earlier direction did not fit
        whole = (i + 1) * price[path] >= dense[path]
        extra = dense[path] - i * price[path] if whole else price[path]
        if extra > left:
            continue
        left -= extra
        ranks = {p: r for p, r in ranks.items() if p != path} if whole else {**ranks, path: i + 1}
    return ranks
