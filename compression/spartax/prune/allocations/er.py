"""ER: layers with few connections for their features keep more."""

import math

from spartax import checks
from spartax.prune.allocations._by_shape import ByShape
from spartax.prune.allocations.erk import densities
from spartax.records import Allocation, Evidence, Layout, Path, Weights


def er(power: float = 1.0) -> Allocation:
    """Erdos-Renyi densities `d_l = min(1, eps p_l)` with `p_l = ((fan_in + fan_out) / (fan_in fan_out))**power`.

    Fans count features: unlike `erk`, the spatial axes of a convolution are left out, so its size does not make it
    denser. `eps` is solved for as in `erk`. The scores are not looked at. See Mocanu et al., Scalable Training of
    Artificial Neural Networks with Adaptive Sparse Connectivity, arXiv 1707.04780.

    Args:
      power: 1 is the paper's; 0 gives every layer the same density.

    Raises:
      ValueError: `power` outside [0, 10].
    """
    checks.in_range("power", power, 0.0, 10.0)

    def allocate(scores: Weights, sparsity: float, evidence: Evidence) -> dict[Path, int]:
        sizes = {path: score.size for path, score in scores.items()}
        raw = {p: _raw(s.shape, evidence.layouts[p], _is_conv(p, evidence)) ** power for p, s in scores.items()}
        density = densities(raw, sizes, 1 - sparsity)
        return {path: round(density[path] * n) for path, n in sizes.items()}

    return ByShape(allocate)


def _raw(shape: tuple[int, ...], layout: Layout, conv: bool) -> float:
    inputs = layout.inputs[-1:] if conv else layout.inputs
    ins, outs = (math.prod(shape[a] for a in axes) for axes in (inputs, layout.outputs))
    return (ins + outs) / (ins * outs)


def _is_conv(path: Path, evidence: Evidence) -> bool:
    """Whether all but the last input axis are spatial: as the program says, else all weights of several input axes."""
    uses = (evidence.uses or {}).get(path)
    return uses[0].op == "conv_general_dilated" if uses else True
