"""FGSM: one step of the full length along the gradient."""

from spartax.attacks import losses, objective, threats
from spartax.attacks.network import on_any_mesh, problem
from spartax.records import Array, Attack, LogitsFn


def fgsm(eps: float, norm: str = "linf", *, loss: losses.Loss = losses.cross_entropy) -> Attack:
    """Fast gradient method: `x_adv = P(x + eps * direction(gradient of the loss))`.

    The direction is `sign(g)` for linf, `g / |g|_2` for l2 and the SLIDE direction for l1; P clips to ball and box.
    See Goodfellow, Shlens and Szegedy, "Explaining and harnessing adversarial examples", arXiv 1412.6572.

    Args:
      eps: radius in pixel units of [0, 1].
      norm: `"linf"`, `"l2"` or `"l1"`.
      loss: `(logits [B, K], y [B]) -> [B]`, maximized.

    Returns:
      `attack(key, logits_fn, x, y, *, index=None) -> x_adv`, shapes as in `records.Attack`.

    Raises:
      ValueError: unknown norm, eps below 0; at the call, images outside [0, 1] or labels that do not fit.
    """
    ball = threats.threat(norm, eps)

    @on_any_mesh
    def attack(key: Array, logits_fn: LogitsFn, x: Array, y: Array, *, index: Array | None = None) -> Array:
        given = problem(key, logits_fn, x, y, index)
        seen = objective.look(given.network, loss, given.x, given.y, given.keys)
        return ball.project(given.x + eps * ball.ascent(seen.gradient), given.x)

    return attack
