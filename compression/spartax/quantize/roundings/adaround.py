"""AdaRound: whether each entry goes up or down is learnt from the error of the layer."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from spartax import checks
from spartax.quantize.codes import between, encode
from spartax.quantize.records import Rounding
from spartax.quantize.roundings._layer import Problem, Solution, by_layer, times
from spartax.records import Array

STRETCH = (-0.1, 1.1)  # of the sigmoid, so that it reaches 0 and 1
SHARPNESS = (20.0, 2.0)  # exponent of the penalty, from first to last
WARM_UP = 0.2  # share of the steps without a penalty


class Options(NamedTuple):
    """Of `adaround`."""

    steps: int
    lr: float
    penalty: float


def adaround(steps: int = 2000, lr: float = 0.02, penalty: float = 4.0) -> Rounding:
    """Every entry to the level below or above it, `low + h (high - low)`, whichever makes the layer err least.

    `h = clip(1.2 sigmoid(v) - 0.1, 0, 1)` starts where the weight lies and is learnt, all entries of a layer together:
    Adam on `tr(D H D^T) / e + penalty sum(1 - |2 h - 1|^b)`, D the change of the weights, `H = E[x x^T]` of the inputs
    in the network before quantization, e the error of the nearest codes for each entry, so that the penalty means the
    same in every layer. It is off for the first fifth of the steps, then b falls from 20 to 2 and drives h to 0 or 1.
    Deterministic. Entries under a mask stay zero. Nagel et al., Up or Down? Adaptive Rounding for Post-Training
    Quantization, arXiv 2004.10568.

    Outputs for which nearest loses less keep the nearest codes. The report has `nearest_loss`, `layer_loss`, `moved`
    (share of entries that are not at their nearest code) and `dead_inputs` (inputs that are always zero).

    Args:
      steps: of Adam, each a product with H.
      lr: of Adam.
      penalty: its weight.

    Raises:
      ValueError: bad options; at use, moments that are missing, of another shape, not finite or zero, and a weight that
        is a sum or a product of arrays, each by its path.
    """
    checks.positive_int("steps", steps)
    checks.in_range("lr", lr, 1e-6, 1.0)
    checks.in_range("penalty", penalty, 0.0, 1e3)
    return by_layer("adaround", _solve, Options(steps, float(lr), float(penalty)))


def _solve(problem: Problem, options: Options) -> Solution:
    near = encode(problem.matrix, problem.scales, problem.grid)
    below, above, place = between(problem.matrix, problem.scales, problem.grid)
    low, high = problem.values(below), problem.values(above)
    gap = high - low
    unit = jnp.sum(problem.loss(near), axis=-1) / (problem.matrix.shape[-1] * problem.matrix.shape[-2])
    pull = problem.moments / jnp.where(unit > 0, unit, 1)[..., None, None]

    def gradient(v: Array, step: Array) -> Array:
        part = jnp.clip((step / options.steps - WARM_UP) / (1 - WARM_UP), 0, 1)
        sharpness = SHARPNESS[0] + (SHARPNESS[1] - SHARPNESS[0]) * part
        penalty = jnp.where(part > 0, options.penalty, 0.0)

        def objective(v: Array) -> Array:
            h = _stretched(v)
            error = low + h * gap - problem.matrix
            fit = jnp.sum(error * lax.stop_gradient(2 * times(error, pull)))  # with the gradient of tr(D H D^T)
            return fit + penalty * jnp.sum(1 - jnp.abs(2 * h - 1) ** sharpness)

        return jax.grad(objective)(v)

    v = _learnt(gradient, _unstretched(place), options)
    codes = jnp.where(_stretched(v) >= 0.5, above, below)
    if problem.kept is not None:
        codes = jnp.where(problem.kept, codes, near)
    failed = jnp.zeros(codes.shape[:-2], bool)
    return Solution(codes, failed, {})


def _learnt(gradient: Callable[[Array, Array], Array], v: Array, options: Options) -> Array:
    tx = optax.adam(options.lr)

    def step(i: Array, carry: tuple[Array, optax.OptState]) -> tuple[Array, optax.OptState]:
        v, state = carry
        change, state = tx.update(gradient(v, i), state)
        return jnp.asarray(optax.apply_updates(v, change)), state

    return lax.fori_loop(0, options.steps, step, (v, tx.init(v)))[0]


def _stretched(v: Array) -> Array:
    return jnp.clip((STRETCH[1] - STRETCH[0]) * jax.nn.sigmoid(v) + STRETCH[0], 0, 1)


def _unstretched(h: Array) -> Array:
    """`v` with `_stretched(v) = h`."""
    share = (h - STRETCH[0]) / (STRETCH[1] - STRETCH[0])
    return jnp.log(share) - jnp.log1p(-share)
