"""`rslad`: distillation of robustness with soft labels alone."""

import jax.numpy as jnp

from spartax import checks
from spartax.records import Array, LogitsFn
from spartax.train.attacked import averaged_updates, farthest
from spartax.train.divergence import divergence, taught
from spartax.train.network import Loss, Network, attacking


def rslad(
    teacher: LogitsFn,
    eps: float,
    norm: str = "linf",
    *,
    robust: float = 5 / 6,
    steps: int = 10,
    step_size: float | None = None,
) -> Loss:
    """`mean of robust KL(t(x) || f(x')) + (1 - robust) KL(t(x) || f(x))`, no hard labels.

    `x'` is where `KL(t(x) || f(x'))` is largest in the ball, by PGD from `x + 0.001 N(0, 1)`. As
    published the divergence is a mean over classes too, so that it is K times smaller than that of `train.trades`.
    See Zi et al., "Revisiting Adversarial Robustness
    Distillation: Robust Soft Labels Make Student Better" (arXiv 2108.07969).

    Args:
      teacher: `x -> logits [B, K]` in evaluation mode, of a robust network.
      eps: radius in pixel units of [0, 1].
      norm: `"linf"`, `"l2"` or `"l1"`.
      robust: share of the attacked images, in [0, 1].
      steps: of PGD.
      step_size: in pixel units; `2.5 * eps / steps` when left out.

    Returns:
      `loss(network, key, x, y) -> (value, updates)`, see `train.Loss`; statistics are the mean of those of both passes.

    Raises:
      ValueError: an argument out of its range; at the call, a teacher with another number of classes.
    """
    checks.in_range("robust", robust, 0.0, 1.0)
    find = farthest(divergence, eps, norm, steps, step_size)

    @attacking
    def loss(network: Network, key: Array, x: Array, y: Array) -> tuple[Array, dict]:
        del y
        clean, first = network.forward(x)
        target = taught(teacher, x, clean)
        attacked, second = network.forward(find(network, key, x, target))
        each = robust * divergence(target, attacked) + (1 - robust) * divergence(target, clean)
        return jnp.mean(each) / clean.shape[1], averaged_updates(first, second)

    return loss
