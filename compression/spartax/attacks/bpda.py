"""Values of one network, gradients of another."""

from jax import lax
from jax.tree_util import Partial

from spartax.attacks.network import as_pytree, is_random
from spartax.kernels.derivatives import with_derivative_of
from spartax.records import Array, LogitsFn


def bpda(logits_fn: LogitsFn, surrogate: LogitsFn) -> Partial:
    """The network `logits_fn`, whose derivative is that of `surrogate` where it has none of its own to go by.

    An attack on it climbs the loss of `logits_fn` along gradients of `surrogate` and stops where `logits_fn` errs:
    backward pass differentiable approximation (Athalye et al., arXiv 1802.00420). A surrogate may be the network
    without its rounding, its dense parent, or any network that errs alike.

    Args:
      logits_fn: `x [B, ...] -> logits [B, K]`, the network that is judged.
      surrogate: the same; its derivative at `x` is taken for that of `logits_fn`.

    Returns:
      `x -> logits`, with the weights of both as arguments where these are `jax.tree_util.Partial`.

    Raises:
      ValueError: a network that draws (takes a `key`).
    """
    for name, network in (("logits_fn", logits_fn), ("surrogate", surrogate)):
        if is_random(network):
            raise ValueError(f"{name} must not draw: a network that takes a key has no one derivative to stand in for.")
    return Partial(_joined, as_pytree(logits_fn), as_pytree(surrogate))


def _joined(logits_fn: LogitsFn, surrogate: LogitsFn, x: Array) -> Array:
    logits = lax.stop_gradient(logits_fn(x))
    return with_derivative_of(surrogate(x).astype(logits.dtype), logits)
