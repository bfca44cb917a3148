"""Movement: weights that training drives away from zero matter."""

import jax.numpy as jnp

from spartax.prune.learnt_scores import scored
from spartax.records import Allocation, Transform


def movement(sparsity: float = 0.9, allocation: Allocation | None = None) -> Transform:
    """Each weight becomes `Scored` with scores that begin at zero and follow `dL/dS = dL/dw * W`.

    Gradient descent on the scores adds up `-W dL/dw`: a weight that moves away from zero gains, one that shrinks loses,
    whatever its size. Train weights and scores together (`train.init_state` without a rule; usually a larger learning
    rate for the scores). A sparsity that rises: apply `movement(s).update` with the next `s` on the way. The kept
    entries are the largest scores, ties to the lowest flat index. Then `prune.finish(params)`.
    See Sanh et al., Movement Pruning: Adaptive Sparsity by Fine-Tuning, arXiv 2005.07683.

    Args:
      sparsity: removed fraction, in [0, 1).
      allocation: counts of each weight; `prune.uniform()` when left out.

    Raises:
      ValueError: sparsity outside [0, 1); at use, a weight left with no entries, or params without scores.
    """
    zeros = lambda weight, layout: jnp.zeros(weight.shape, jnp.float32)  # noqa: E731
    return scored("movement", zeros, sparsity, allocation, absolute=False)
