"""The last step of Double Rounding: one width for every weight, together least harmful at a mean number of bits."""

import math
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from spartax import checks, knapsack, tree
from spartax.arrays import dense
from spartax.kernels.double_rounding import STORED
from spartax.program.switch import switch
from spartax.records import Array, Params, Path


def assign_widths(
    params: Params, traces: Mapping[Path, float], mean_bits: float, widths: Sequence[int] = (8, 6, 4, 2)
) -> dict[Path, int]:
    """Bits for `quantize.switch`: `min sum_l tr(H_l) / (2 n_l) ||W_l(b_l) - W_l(8)||^2`, `sum n_l b_l <= mean n`.

    `W_l(b)` are the `n_l` entries as read at b bits. Solved by `knapsack.choose`; a negative trace counts as none. The
    objective that the text of "Nearly Lossless Adaptive Bit Switching" (S063) states, `tr(H_l) / n_l * b_l`, would give
    the least bits to the most sensitive weights; this is that of HAWQ-V2 (arXiv 1911.03852).

    Args:
      params: params with weights of `double_rounding`, packed or not.
      traces: path -> trace of the Hessian over the entries of the weight, such as `bits.hessian_trace.hessian_traces`.
      mean_bits: for each entry of these weights.
      widths: 2 to 8 bits, to choose from.

    Raises:
      ValueError: no widths or others, `mean_bits` below the least of them, a trace that is not finite, no traces or
        those of a weight without double rounding.
    """
    checks.positive_int("the number of traces", len(traces))
    checks.positive_int("the number of widths", len(widths))
    for width in widths:
        checks.one_of("widths", width, range(2, STORED + 1))
    checks.in_range("mean_bits", mean_bits, min(widths), STORED)
    checks.finite("traces", jnp.asarray(list(traces.values()), jnp.float32))
    weights = tree.pick(switch(params, dict.fromkeys(traces, STORED)), traces)
    sizes = {path: math.prod(w.shape) for path, w in weights.items()}
    losses = [
        [max(traces[p], 0.0) / (2 * sizes[p]) * float(_change(switch(w, bits), w)) for bits in widths]
        for p, w in weights.items()
    ]
    costs = [[size * b for b in widths] for size in sizes.values()]
    chosen = knapsack.choose(losses, costs, mean_bits * sum(sizes.values()))
    return {path: widths[option] for path, option in zip(weights, chosen)}


@jax.jit
def _change(narrow: Params, wide: Params) -> Array:
    return jnp.sum(jnp.square(dense(narrow) - dense(wide)))
