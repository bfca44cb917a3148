"""QFX: fixed-point weights whose binary point is learnt, bit for bit as hardware computes them."""

import jax
import jax.numpy as jnp

from spartax import checks, tree
from spartax.arrays import FakeQuantized, FixedPoint
from spartax.arrays.fixed_point import point_for
from spartax.kernels.words import ROUNDINGS
from spartax.quantize.report import LOST
from spartax.quantize.training import fake_inputs, fake_weights, found, relative_error, shared_shape
from spartax.records import Array, Evidence, Info, Layout, Params, Transform

REACH = 8.0  # where words of activations begin to saturate


def qfx(
    bits: int = 8, *, rounding: str = "even", k_hot: int | None = None, activations: int | None = None
) -> Transform:
    """Each weight is a word `<b, f>` wherever it is used, `clip(round(w 2^f), -2^(b-1), 2^(b-1) - 1) 2^-f`, f learnt.

    One f for each weight (of a layer of a stack) begins where the largest entry just fits, `b - 1 - ceil(log2 max|w|)`;
    it is rounded to an integer, its gradient that of the step `2^-f` by LSQ over `sqrt(n 2^(b-1))`. Give it a small
    learning rate, and none at the end, when it may jump between two integers. With `k_hot`, words keep their highest K
    ones: multiplying by them takes K shifts and no multiplier. `kernels.words` has the integer arithmetic that the
    network then needs. `sx.pack` keeps the words. After "Trainable Fixed-Point Quantization for Deep Learning
    Acceleration on FPGAs" (S107), as far as its abstract tells.

    Args:
      bits: b of the weights with the sign, 2 to 16.
      rounding: "even" (halves to even), "half_up" (RND of `ap_fixed`) or "floor" (TRN).
      k_hot: ones of a word, 1 or more; None keeps all.
      activations: b of what meets the weights, whose own f begins where words reach 8; None leaves them float. The
        network runs under `sx.compressed`.

    Raises:
      ValueError: a bad value; at use, a weight quantized already.
    """
    for name, value in {"bits": bits, "activations": 2 if activations is None else activations}.items():
        checks.one_of(name, value, range(2, 17))
    checks.one_of("rounding", rounding, tuple(ROUNDINGS))
    if k_hot is not None:
        checks.positive_int("k_hot", k_hot)

    def init(params: Params, evidence: Evidence) -> tuple[Params, tuple]:
        params = fake_weights(params, evidence, lambda w, layout, kept: _first(w, kept, layout, bits, rounding, k_hot))
        if activations is not None:
            start = float(point_for(jnp.float32(REACH), activations))
            blank = lambda s: FixedPoint(jnp.full(s, activations), jnp.full(s, start), rounding)  # noqa: E731
            params = fake_inputs(params, evidence, blank)
        return params, ()

    def update(params: Params, state: tuple, evidence: Evidence) -> tuple[Params, tuple, Info]:
        info = {}
        for path, weight in tree.pick(params, evidence.layouts).items():
            own = found(path, weight, FakeQuantized, FixedPoint)
            fractions = [int(f) for leaf in own for f in leaf.quantizer.fraction.reshape(-1)]
            error = relative_error(own, weight)
            info[path] = {"method": "qfx", "bits": bits, "fraction": fractions, "relative_error": error}
            if error > LOST:
                info[path]["warning"] = f"{error:.0%} of the weight is lost: its numbers are far from its point"
        return params, state, info

    return Transform(frozenset(), init, update)


@jax.jit(static_argnums=(2, 3, 4, 5))
def _first(
    weight: Array, kept: Array | None, layout: Layout, bits: int, rounding: str, k_hot: int | None
) -> FixedPoint:
    shape = shared_shape(weight.shape, layout)
    axes = tuple(a for a, n in enumerate(shape) if n == 1)
    point = point_for(jnp.max(jnp.abs(weight), axes, keepdims=True, initial=0, where=kept), bits)
    return FixedPoint(jnp.full(shape, bits, jnp.int32), point.astype(jnp.float32), rounding, k_hot)
