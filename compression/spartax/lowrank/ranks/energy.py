"""Energy: as many directions as hold a given share of the squared singular values."""

import numpy as np

from spartax import checks
from spartax.lowrank.matrices import spectra
from spartax.records import Evidence, Path, Ranks, Weights


def energy(kept: float = 0.99) -> Ranks:
    """The smallest r with `sum_{i <= r} sigma_i^2 >= kept * sum_i sigma_i^2`, for every weight on its own.

    The relative error of the weight is then at most `sqrt(1 - kept)` under `lowrank.svd()`.

    Args:
      kept: share of the squared Frobenius norm, in [0, 1].

    Raises:
      ValueError: `kept` outside [0, 1].
    """
    checks.in_range("kept", kept, 0.0, 1.0)

    def choose(matrices: Weights, evidence: Evidence) -> dict[Path, int]:
        del evidence
        return {path: smallest_rank(spectrum, kept) for path, spectrum in spectra(matrices).items()}

    return choose


def smallest_rank(spectrum: np.ndarray, kept: float) -> int:
    """How many of the squared singular values (largest first) hold the share `kept` of their sum; at least 1."""
    held = np.cumsum(spectrum)
    return min(int(np.searchsorted(held, kept * held[-1])) + 1, len(spectrum))
