"""LSQ: the steps of weights and activations are learnt together with the weights."""

import functools

import jax
import jax.numpy as jnp

from spartax import catalog, checks, tree
from spartax.arrays import FakeInputs, FakeQuantized, LearntStep
from spartax.arrays.learnt_step import first_step
from spartax.quantize.training import (
    exchanged,
    fake_inputs,
    fake_weights,
    found,
    mean_size,
    not_too_long,
    relative_error,
    shared_shape,
)
from spartax.records import Array, Evidence, Info, Layout, Params, Transform


def lsq(bits: int = 4, *, channel: bool = False, activations: int | None = None) -> Transform:
    """Each weight is rounded to learnt steps wherever it is used: `round(clip(w / s, -2^(b-1), 2^(b-1) - 1)) s`.

    Derivatives go straight through to the float weight; that of the step is scaled by `1 / sqrt(n (2^(b-1) - 1))` for n
    entries that share it. Steps begin at `2 E|w| / sqrt(2^(b-1) - 1)`; under a mask E is that of the kept entries, and
    the half, quarter or eighth is taken if that loses less, since no code need be zero there. With `activations`, what
    meets the weight is rounded too: to `2^bits` codes from 0 on where the first batch has no negative entry, else to
    signed ones; these steps begin at the first `update`, from that batch. Start from a trained network, with a
    hundredth of its learning rate. `sx.pack(params)` then keeps the codes alone, with the same weights.

    Steps are trained, so the optimizer sees them: weight decay, if it is there for the weights, is kept from them by
    `optax.add_decayed_weights(rate, mask=lambda p: jax.tree_util.tree_map_with_path(lambda k, _: "scale" not in
    jax.tree_util.keystr(k), p))`. See Esser et al., Learned Step Size Quantization, arXiv 1902.08153.

    Args:
      bits: of the weights, 2 to 8.
      channel: one step for each output; for each weight (of a layer of a stack) when False, as in the paper.
      activations: bits of the activations, 2 to 8; None leaves them float. Their network runs under `sx.compressed`.

    Raises:
      ValueError: other bits; at use, a weight quantized already, activations without a batch or zero in all
        of it.
    """
    for name, value in {"bits": bits, "activations": 2 if activations is None else activations}.items():
        checks.one_of(name, value, range(2, 9))
    needs = frozenset() if activations is None else frozenset({"magnitudes", "means"})

    def init(params: Params, evidence: Evidence) -> tuple[Params, tuple]:
        params = fake_weights(params, evidence, lambda w, layout, kept: _first(w, kept, layout, bits, channel))
        if activations is not None:
            blank = lambda stack: LearntStep(jnp.zeros(stack), activations, jnp.zeros(stack, bool))  # noqa: E731
            params = fake_inputs(params, evidence, blank)
        return params, ()

    def update(params: Params, state: tuple, evidence: Evidence) -> tuple[Params, tuple, Info]:
        new, info = tree.pick(params, evidence.layouts), {}
        for path, weight in new.items():
            error = relative_error(found(path, weight, FakeQuantized, LearntStep), weight)
            info[path] = {"method": "lsq", "bits": bits, "activations": activations, "relative_error": error}
            if needs:
                given = [catalog.need(name, evidence)[path] for name in ("magnitudes", "means")]
                checks.nonzero_layers(f"lsq: the input of {path}", given[0], given[0].ndim - 1)
                new[path] = exchanged(weight, FakeInputs, LearntStep, functools.partial(_begun, *given))
        return tree.replace(params, new), state, info

    return Transform(needs, init, update)


@jax.jit(static_argnums=(2, 3, 4))
def _first(weight: Array, kept: Array | None, layout: Layout, bits: int, channel: bool) -> LearntStep:
    size = mean_size(weight, shared_shape(weight.shape, layout, channel), kept)
    return LearntStep(not_too_long(first_step(size, 2 ** (bits - 1) - 1), weight, kept, (bits,)), bits)


@jax.jit
def _begun(sizes: Array, means: Array, old: LearntStep) -> LearntStep:
    """The steps of activations: those they have, or the first ones from `E|x|` and `E x`, `[*stack, I]`."""
    unsigned = jnp.all(sizes - means <= 1e-5 * sizes, axis=-1)  # no negative entry, up to rounding of the two sums
    step = first_step(jnp.mean(sizes, axis=-1), jnp.where(unsigned, 2**old.bits - 1, 2 ** (old.bits - 1) - 1))
    fresh = old.scale == 0
    scale = jnp.where(fresh, step, old.scale).astype(old.scale.dtype)
    return LearntStep(scale, old.bits, unsigned if old.unsigned is None else jnp.where(fresh, unsigned, old.unsigned))
