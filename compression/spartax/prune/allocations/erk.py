"""ERK: layers with few parameters for their width keep more."""

import math

from spartax import checks
from spartax.prune.allocations._by_shape import ByShape
from spartax.records import Allocation, Evidence, Path, Weights


def erk(power: float = 1.0) -> Allocation:
    """Erdos-Renyi-Kernel densities `d_l = min(1, eps p_l)` with `p_l = (sum of the axes / product of the axes)**power`.

    `eps` makes the total `(1 - sparsity) N`; a layer whose density would exceed 1 stays dense and `eps` is solved again
    for the others. Each weight then keeps `round(d_l n_l)`.

    The scores are not looked at. See Evci et al., Rigging the Lottery, arXiv 1911.11134.

    Args:
      power: 1 is the paper's; 0 gives every layer the same density.

    Raises:
      ValueError: `power` outside [0, 10].
    """
    checks.in_range("power", power, 0.0, 10.0)

    def allocate(scores: Weights, sparsity: float, evidence: Evidence) -> dict[Path, int]:
        sizes = {path: score.size for path, score in scores.items()}
        raw = {p: _raw(_shape_of_one(s.shape, evidence.layouts[p].stack)) ** power for p, s in scores.items()}
        density = densities(raw, sizes, 1 - sparsity)
        return {path: round(density[path] * n) for path, n in sizes.items()}

    return ByShape(allocate)


def densities(raw: dict[Path, float], sizes: dict[Path, int], density: float) -> dict[Path, float]:
    """`min(1, eps raw)` for every layer, with the total `density` times all sizes."""
    dense: set[Path] = set()
    while True:
        rest = [path for path in raw if path not in dense]
        left = density * sum(sizes.values()) - sum(sizes[path] for path in dense)
        eps = left / sum(raw[path] * sizes[path] for path in rest) if rest else 0.0
        most = max((raw[path] for path in rest), default=0.0)
        if eps * most <= 1:
            return {path: 1.0 if path in dense else eps * raw[path] for path in raw}
        dense |= {path for path in rest if raw[path] == most}


def _raw(shape: tuple[int, ...]) -> float:
    return sum(shape) / math.prod(shape)


def _shape_of_one(shape: tuple[int, ...], stack: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of one layer of a stack."""
    return tuple(n for axis, n in enumerate(shape) if axis not in stack)
