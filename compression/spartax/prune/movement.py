"""Movement: weights that training drives away from zero matter."""

import jax.numpy as jnp

from spartax.prune.learnt_scores import scored
from spartax.records import Allocation, Schedule, Transform


def movement(
    sparsity: float = 0.9, allocation: Allocation | None = None, schedule: Schedule | None = None
) -> Transform:
    """Each weight becomes `Scored` with scores that begin at zero and follow `dL/dS = dL/dw * W`.

    Gradient descent on the scores adds up `-W dL/dw`: a weight that moves away from zero gains, one that shrinks loses,
    whatever its size. Train weights and scores together (`train.init_state` without a rule; usually a larger learning
    rate for the scores), then fix the masks by `prune.finish(params)`. Until training has moved them, equal scores are
    kept from the lowest flat index on, so begin dense: `schedule=prune.cubic(...)`, as in the paper.
    See Sanh et al., Movement Pruning: Adaptive Sparsity by Fine-Tuning, arXiv 2005.07683.

    Args:
      sparsity: removed fraction, in [0, 1).
      allocation: counts of each weight; `prune.uniform()` when left out.
      schedule: the sparsity at each training step; `prune.one_shot()` when left out.

    Raises:
      ValueError: sparsity outside [0, 1); at use, a weight left with no entries, or params without scores.
    """
    zeros = lambda weight, layout: jnp.zeros(weight.shape, jnp.float32)  # noqa: E731
    return scored("movement", zeros, sparsity, allocation, schedule, absolute=False)
