"""HASB: in training, layers with much curvature are drawn at wide widths more often."""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from spartax import checks
from spartax.kernels.double_rounding import STORED
from spartax.records import Array, Path

Draw = Callable[[Array, Array], dict[Path, Array]]


def hasb(traces: Mapping[Path, float], steps: int, widths: Sequence[int] = (8, 6, 4, 2), *, share: float = 1.0) -> Draw:
    """Hessian-aware stochastic bit switching: a width for every weight, drawn anew at each training step.

    With probability `share * (n + 1) / steps` at step n (from 0), a weight whose trace is at least the mean of all gets
    width b with probability `b / sum of widths`; in all other cases widths are equally likely. So training begins with
    every mixture alike, and ends near the ones that a sensitivity will choose. For `train.switching(step, hasb(...))`.
    See "Nearly Lossless Adaptive Bit Switching" (S063).

    Args:
      traces: path -> trace of the Hessian over the entries of the weight, such as `bits.hessian_trace.hessian_traces`.
      steps: of the whole training.
      widths: bits to draw from.
      share: the probability of the Hessian-aware choice at the end.

    Returns:
      `(key, step) -> path -> bits`, int32 scalars, as `quantize.switch` takes them.

    Raises:
      ValueError: no traces, one that is not finite, widths or values out of range.
    """
    checks.positive_int("steps", steps)
    checks.in_range("share", share, 0, 1)
    aware, even = _probabilities(traces, widths)
    choices = jnp.asarray(widths, jnp.int32)

    @jax.jit
    def draw(key: Array, step: Array) -> dict[Path, Array]:
        coin, key = jax.random.split(key)
        turned = jax.random.uniform(coin) < share * (step + 1) / steps
        drawn = jax.random.categorical(key, jnp.log(jnp.where(turned, aware, even)))
        return dict(zip(traces, choices[drawn]))

    return draw


def _probabilities(traces: Mapping[Path, float], widths: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Of every width for every weight, `[weights, widths]`: Hessian-aware ones, and equal ones."""
    checks.positive_int("the number of traces", len(traces))
    checks.positive_int("the number of widths", len(widths))
    for width in widths:
        checks.one_of("widths", width, range(2, STORED + 1))
    values = np.asarray(list(traces.values()), np.float32)
    checks.finite("traces", values)
    even = np.full((len(traces), len(widths)), 1 / len(widths), np.float32)
    roulette = np.asarray(widths, np.float32) / np.sum(widths)
    return np.where((values >= values.mean())[:, None], roulette, even), even
