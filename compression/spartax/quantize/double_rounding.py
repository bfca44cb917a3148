"""Double Rounding: weights trained to be read at several widths from one copy of int8."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from spartax import checks, tree
from spartax.arrays import FakeQuantized, SwitchedStep
from spartax.arrays.learnt_step import first_step
from spartax.kernels.double_rounding import STORED
from spartax.program.switch import switch
from spartax.quantize.training import fake_weights, found, mean_size, not_too_long, relative_error, shared_shape
from spartax.records import Array, Evidence, Info, Layout, Params, Transform

WIDTHS = (8, 6, 4, 2)


def double_rounding(widths: Sequence[int] = WIDTHS, *, channel: bool = False) -> Transform:
    """Each weight is rounded to int8 and again to the width in use: `q_8 = clip(round(w / s))`, `q_b = clip(round(q_8 /
    2^(8-b)))`, `w_b = q_b s 2^(8-b)`, wherever it is used.

    One step s, of 8 bits, is learnt for all widths; derivatives go straight through. It begins where LSQ begins at the
    narrowest width, `2 E|w| / sqrt(2^(b-1) - 1) / 2^(8-b)`, under a mask with the errors of all widths added. Widths
    begin at the widest: `quantize.switch(params, bits)` changes them, `train.switching(step, widths)` trains all of
    them in turn, `train.alrs` has a learning rate for each. `sx.pack(params)` keeps the int8 codes alone, under a mask
    the kept ones, which `switch` reads at any width; networks with batch normalization take statistics of their own at
    each (`train.reestimate_batch_stats`). Start from a trained network. See "Nearly Lossless Adaptive Bit Switching"
    (S063).

    Args:
      widths: bits that are trained, each from 2 to 8.
      channel: one step for each output; for each weight (of a layer of a stack) when False.

    Raises:
      ValueError: no widths, or others; at use, a weight quantized already.
    """
    checks.positive_int("the number of widths", len(widths))
    for width in widths:
        checks.one_of("widths", width, range(2, STORED + 1))
    widths = tuple(widths)

    def init(params: Params, evidence: Evidence) -> tuple[Params, tuple]:
        return fake_weights(params, evidence, lambda w, layout, kept: _first(w, kept, layout, widths, channel)), ()

    def update(params: Params, state: tuple, evidence: Evidence) -> tuple[Params, tuple, Info]:
        info = {}
        for path, weight in tree.pick(params, evidence.layouts).items():
            own = found(path, weight, FakeQuantized, SwitchedStep)
            errors = [relative_error(switch(own, width), weight) for width in widths]
            bits = int(own[0].quantizer.bits.reshape(-1)[0])
            info[path] = {"method": "double_rounding", "bits": bits, "widths": list(widths), "relative_errors": errors}
        return params, state, info

    return Transform(frozenset(), init, update)


@jax.jit(static_argnums=(2, 3, 4))
def _first(weight: Array, kept: Array | None, layout: Layout, widths: tuple[int, ...], channel: bool) -> SwitchedStep:
    narrowest = min(widths)
    size = mean_size(weight, shared_shape(weight.shape, layout, channel), kept)
    step = not_too_long(first_step(size, 2 ** (narrowest - 1) - 1), weight, kept, widths) / 2 ** (STORED - narrowest)
    return SwitchedStep(step, jnp.full(shared_shape(weight.shape, layout), max(widths), jnp.int8))
