"""RigL: sparse from the first step on, with weights that grow where the gradient asks for them."""

import jax
import jax.numpy as jnp

from spartax import catalog, checks
from spartax.prune.drop_grow import drop_grow
from spartax.records import Allocation, Array, Evidence, Transform, Weights


def rigl(
    sparsity: float = 0.9, allocation: Allocation | None = None, *, end: int, every: int = 100, fraction: float = 0.3
) -> Transform:
    """Random masks that move: drop the smallest weights, grow the largest dense gradients, counts fixed.

    Before training step `t = every, 2 every, ... < end`, with `n` kept entries in a weight, the
    `int(n fraction / 2 (1 + cos(pi t / end)))` of smallest magnitude are dropped and as many with the largest `|dL/dw|`
    grow, from zero. The gradient is that of the dense weight at the masked network (`evidence.grads`), over the whole
    batch, so that sharded devices agree. `train.fit` follows the schedule and restarts the moments of grown weights.

    See Evci et al., Rigging the Lottery: Making All Tickets Winners, arXiv 1911.11134.

    Args:
      sparsity: removed fraction, in [0, 1).
      allocation: counts of each weight; `prune.erk()` when left out.
      end: training step from which masks stay; 75 % of training in the paper.
      every: steps between two moves.
      fraction: part of the weights that moves at first.

    Raises:
      ValueError: values outside these ranges; at use, a weight that is compressed already or left with no entries, a
        step, key or gradient that is missing, a gradient that is zero everywhere.
    """
    return drop_grow("rigl", _growth, {"grads"}, sparsity, allocation, fraction, every, end)


def _growth(weights: Weights, evidence: Evidence) -> Weights:
    gradients = catalog.need("grads", evidence)
    checks.nonzero("rigl: the gradient of the loss", [gradients[path] for path in weights])
    return {path: _size(gradients[path]) for path in weights}


@jax.jit
def _size(gradient: Array) -> Array:
    return jnp.abs(gradient).astype(jnp.promote_types(gradient.dtype, jnp.float32))
