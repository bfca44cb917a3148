"""ReSTE: binary weights and activations, whose backward pass nears the sign as training goes on."""

import math

import jax
import jax.numpy as jnp

from spartax import checks, tree
from spartax.arrays import FakeInputs, FakeQuantized, Sign
from spartax.arrays.sign import UNIT, estimator_slope
from spartax.quantize.training import exchanged, fake_inputs, fake_weights, found, kept_of, shared_shape
from spartax.records import Array, Evidence, Info, Params, Path, Transform


def reste(steps: int, o_end: float = 3.0, *, every: int = 100, activations: bool = False) -> Transform:
    """Each weight becomes `sign(w) E|w|` wherever it is used, with the derivative of `sign(w) |w|^(1/o)` in backward.

    o rises with training, `o = 1 + (1 - cos(pi/2 step/steps)) (o_end - 1)`: from the straight-through estimator, which
    is stable, towards the sign, which is exact; `estimating_error` and `gradient_stability` measure the two. It is an
    integer array of the leaf (in units of `2**-16`), so that new values retrace nothing and no optimizer moves it. With
    `activations` the sign of what meets a weight is taken too: put a normalization before it, leave out the first and
    the last layer by the rule, and run the network under `sx.compressed`. `sx.pack` keeps one bit for each weight.
    Under a mask `E|w|` is that of the kept entries; exact zeros count nowhere.

    See Wu et al., Estimator Meets Equilibrium Perspective: A Rectified Straight Through Estimator for Binary Neural
    Networks Training, arXiv 2308.06689 (S097).

    Args:
      steps: of training, over which o rises.
      o_end: its last value, at least 1.
      every: steps between two values.
      activations: whether activations are binary too.

    Raises:
      ValueError: bad numbers; at use, a weight quantized already.
    """
    checks.positive_int("steps", steps)
    checks.positive_int("every", every)
    checks.in_range("o_end", o_end, 1.0, 100.0)

    def init(params: Params, evidence: Evidence) -> tuple[Params, tuple]:
        power = lambda shape: jnp.full(shape, UNIT, jnp.int32)  # noqa: E731
        sign = lambda w, layout, _: Sign(power(shared_shape(w.shape, layout)), scaled=True)  # noqa: E731
        params = fake_weights(params, evidence, sign)
        if activations:
            params = fake_inputs(params, evidence, lambda stack: Sign(power(stack)))
        return params, ()

    def update(params: Params, state: tuple, evidence: Evidence) -> tuple[Params, tuple, Info]:
        o = power_at(int(evidence.step or 0), steps, o_end)
        put = lambda sign: Sign(jnp.full_like(sign.power, round(o * UNIT)), sign.scaled)  # noqa: E731
        new, info = tree.pick(params, evidence.layouts), {}
        for path, weight in new.items():
            info[path] = {"method": "reste", "o": o, **_indicators(path, weight, o)}
            for kind in (FakeQuantized, FakeInputs):
                new[path] = exchanged(new[path], kind, Sign, put)
        return tree.replace(params, new), state, info

    return Transform(frozenset(), init, update, due=lambda step: step % every == 0)


def power_at(step: int, steps: int, o_end: float) -> float:
    """The o after so many of all steps: `1 + (1 - cos(pi/2 step/steps)) (o_end - 1)`, `o_end` from the last step on."""
    return 1 + (1 - math.cos(math.pi / 2 * min(step / steps, 1.0))) * (o_end - 1)


def _indicators(path: Path, weight: object, o: float) -> dict[str, float]:
    leaves = [(x.weight, kept_of(weight, x.weight)) for x in found(path, weight, FakeQuantized, Sign)]
    values = jnp.concatenate([x.reshape(-1) if kept is None else x[kept] for x, kept in leaves])
    error, variance = _both(values, jnp.float32(o))
    return {"estimating_error": float(error), "gradient_variance": float(variance)}


@jax.jit
def _both(x: Array, o: Array) -> tuple[Array, Array]:
    return estimating_error(x, o), gradient_stability(x, o)


def estimating_error(x: Array, o: Array | float) -> Array:
    """`sum (sign(x) - sign(x) |x|^(1/o))^2`: how far what is differentiated is from what is computed."""
    return jnp.sum(jnp.square(1 - jnp.power(jnp.abs(x.astype(jnp.float32)), 1 / o)))


def gradient_stability(x: Array, o: Array | float) -> Array:
    """Variance over the entries of the derivative of the estimator: small is stable."""
    return jnp.var(estimator_slope(x.astype(jnp.float32), o))
