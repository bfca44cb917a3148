"""`awq`: input channels that matter get finer steps, by a search over scales."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from spartax import catalog, checks
from spartax.program import Scaling
from spartax.quantize import calibrations
from spartax.quantize.codes import decode, encode
from spartax.quantize.folding import Factors, Pairs, channel_peaks, folding, in_place
from spartax.quantize.records import Calibration, Grid, Part
from spartax.records import Array, Evidence, Info, Layout, Path, Transform, Weights

RATIOS = np.arange(20) / 20
LEAST = 1e-4  # of a factor before it is centered


def awq(grid: Grid, calibration: Calibration | None = None) -> Transform:
    """Factors `s = E|x|**r`, divided by `sqrt(max s * min s)`, of the ratio r that loses least on `grid`.

    For r = 0, 1/20, ..., 19/20 the readers of a channel are rounded to `Q(W s) / s = W + D`; the r with the least
    `sum tr(D^T E[x x^T] D)`, the mean squared error of their outputs, is folded. r = 0 is plain rounding, so this loss
    never gets worse; all ratios are tried, since it has many minima. AWQ: activation-aware weight quantization, Lin et
    al., arXiv 2306.00978; its clipping is `quantize.output_error()`.

    The pairs are those that `program.scalings` proves: the float network stays the same up to rounding, and `info` says
    for every other weight why its inputs are not scaled. Put it in front of `quantize.quantize` with the same grid.

    Args:
      grid: which numbers, such as `quantize.integer(bits=3, group=64)`.
      calibration: which scale a block gets; that of the grid when left out. One that needs evidence does not apply.

    Raises:
      ValueError: a calibration that needs evidence or does not apply to the grid; at use, inputs that are always zero.
    """
    calibration = calibration or catalog.load(calibrations, grid.calibration)()
    if calibration.needs:
        raise ValueError(f"calibration must not need evidence ({', '.join(sorted(calibration.needs))}) for awq().")
    if calibration.check:
        calibration.check(grid)

    def rounded(path: Path, weight: Array, evidence: Evidence) -> Array:
        scales = calibration.fit(weight, grid, Part(path, evidence.layouts[path], evidence))
        return decode(encode(weight, scales, grid), scales, grid)

    def losses(weights: Weights, pair: Scaling, evidence: Evidence) -> tuple[Array, Array]:
        """The factors of every ratio and what they lose."""
        bare = Evidence(evidence.layouts)
        means, moments = catalog.need("magnitudes", evidence), catalog.need("moments", evidence)

        def lost(ratio: Array, weights: Weights, means: Weights, moments: Weights) -> tuple[Array, Array]:
            s = _factors(ratio, means, pair, evidence.layouts, weights)
            total = jnp.zeros(())
            for path, index in pair.multiplied.items():
                weight, each = weights[path].astype(jnp.float32), s[index]
                error = rounded(path, weight * each, bare) / each - weight
                total = total + _output_error(error, moments[path], evidence.layouts[path])
            return s, total

        own = [{path: field[path] for path in pair.multiplied} for field in (weights, means, moments)]
        return jax.jit(lambda ratios, *own: lax.map(lambda r: lost(r, *own), ratios))(jnp.asarray(RATIOS), *own)

    def choose(weights: Weights, pairs: Pairs, evidence: Evidence) -> tuple[Factors, Info]:
        factors, about, means = {}, {}, catalog.need("magnitudes", evidence)
        for root, pair in pairs.items():
            for path in pair.multiplied:
                checks.nonzero(f"awq: the input of {path}", [means[path]])
            tried, lost = losses(weights, pair, evidence)
            best = int(jnp.argmin(lost))
            factors[root] = tried[best]
            about[root] = {"ratio": float(RATIOS[best]), "loss": float(lost[best]), "plain_loss": float(lost[0])}
        return factors, about

    return folding("awq", frozenset({"magnitudes", "moments"}), choose)


def _factors(ratio: Array, means: Weights, pair: Scaling, layouts: Mapping[Path, Layout], weights: Weights) -> Array:
    """`s` `[channels]`; where several taps or weights read a channel, its largest mean counts."""
    each = [
        channel_peaks(in_place(means[path], layouts[path], weights[path].shape), index, pair.channels)
        for path, index in pair.multiplied.items()
    ]
    s = jnp.maximum(jnp.max(jnp.stack(each), axis=0) ** ratio, LEAST)
    return s / jnp.sqrt(jnp.max(s) * jnp.min(s))


def _output_error(error: Array, moment: Array, layout: Layout) -> Array:
    """`tr(D^T E[x x^T] D)` for an error of the shape of the weight; summed over groups."""
    rows = jnp.transpose(error, (*layout.inputs, *layout.outputs)).reshape(moment.shape[-1], layout.groups, -1)
    moments = moment.reshape(layout.groups, *moment.shape[-2:])
    return jnp.einsum("igo,gij,jgo->", rows, moments, rows, precision=lax.Precision.HIGHEST)
