"""Learning rates that begin small."""

import optax

from spartax import checks


def warm_up(schedule: optax.Schedule, steps: int, total: int) -> optax.Schedule:
    """Rise linearly from zero to `schedule(0)` in `steps` steps, then follow `schedule` from its beginning.

    `rate(n) = schedule(0) n / steps` for `n < steps`, `schedule(n - steps)` from there. So a cosine over what is left:
    `warm_up(optax.cosine_decay_schedule(0.1, total - 500), 500, total)`. See Goyal et al., arXiv 1706.02677.

    Args:
      schedule: count -> learning rate.
      steps: length of the rise.
      total: steps of the whole training.

    Raises:
      ValueError: the rise is not shorter than the training.
    """
    checks.positive_int("steps", steps)
    if steps >= total:
        raise ValueError(f"steps of the warm-up must be fewer than the {total} of the training; got {steps!r}.")
    return optax.join_schedules([optax.linear_schedule(0.0, schedule(0), steps), schedule], [steps])
