"""PACT: activations are clipped at a learnt value and rounded."""

import jax.numpy as jnp

from spartax import checks, tree
from spartax.arrays import FakeInputs, LearntClip
from spartax.quantize.training import fake_inputs, found
from spartax.records import Evidence, Info, Params, Transform


def pact(bits: int = 4, *, alpha: float = 6.0) -> Transform:
    """What meets a weight becomes `round(clip(x, 0, a) / s) s` with `s = a / (2^bits - 1)` and a learnt, one a weight.

    The derivative in a is 1 where `x >= a`. Weights stay as they are: combine with `quantize.lsq` by `sx.chain`. It is
    made for activations behind a ReLU; leave out by the rule what sees negative ones. The paper puts the weight decay
    of the weights on a too, as an optimizer does that is told nothing. The network runs under `sx.compressed`.

    See Choi et al., PACT: Parameterized Clipping Activation for Quantized Neural Networks, arXiv 1805.06085.

    Args:
      bits: 1 to 8.
      alpha: where a begins, about 6 to 10.

    Raises:
      ValueError: other bits; alpha that is not positive and finite.
    """
    checks.one_of("bits", bits, range(1, 9))
    if not 0 < alpha < float("inf"):
        raise ValueError(f"alpha must be positive and finite; got {alpha!r}.")

    def init(params: Params, evidence: Evidence) -> tuple[Params, tuple]:
        return fake_inputs(params, evidence, lambda stack: LearntClip(jnp.full(stack, alpha, jnp.float32), bits)), ()

    def update(params: Params, state: tuple, evidence: Evidence) -> tuple[Params, tuple, Info]:
        weights = tree.pick(params, evidence.layouts)
        own = {path: found(path, w, FakeInputs, LearntClip)[0].quantizer for path, w in weights.items()}
        return (
            params,
            state,
            {p: {"method": "pact", "bits": bits, "alpha": float(jnp.max(q.alpha))} for p, q in own.items()},
        )

    return Transform(frozenset(), init, update)
