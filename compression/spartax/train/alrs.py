"""ALRS: learnt steps of Double Rounding get a learning rate of their own at each width."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from spartax import checks
from spartax.records import Array


class Alrs(NamedTuple):
    """State of the learning rates of steps.

    Attributes:
      count: updates done, int32; the width of the next is `widths[count % len(widths)]`.
      inner: of the direction.
    """

    count: Array
    inner: Any


def alrs(
    rate: float | optax.Schedule,
    others: optax.GradientTransformation,
    widths: Sequence[int] = (8, 6, 4, 2),
    *,
    direction: optax.GradientTransformation | None = None,
    least: float = 0.01,
) -> optax.GradientTransformation:
    """Adaptive learning rate scaling: `lambda_b = eta_b max(rate - E_l min(max |clip(g_l, 1)|, 1), least * rate)`.

    g_l is the gradient of the steps of weight l, E_l the mean over weights, and `eta_b = 10^(-D/2)` for even
    `D = 8 - b`, `5 * 10^(-(D + 1)/2)` for odd D: a step counts `2^D` times at b bits, and its gradient grows with it.
    Without `least`, large gradients would turn the sign of the rate. Everything else is moved by `others`. The widths
    take turns as in `train.switching`. See "Nearly Lossless Adaptive Bit Switching" (S063).

    Args:
      rate: of steps; a schedule counts the rounds through all widths.
      others: optimizer of all that is no step (a field `scale` of a compressed leaf).
      widths: those of `train.switching`, in the same order.
      direction: what the rate multiplies, Adam without a rate when left out.
      least: share of the rate that is always left.

    Raises:
      ValueError: widths that are not 2 to 8, a `least` that is not in [0, 1]; at use, params without learnt steps.
    """
    checks.positive_int("the number of widths", len(widths))
    for width in widths:
        checks.one_of("widths", width, range(2, 9))
    checks.in_range("least", least, 0, 1)
    inner = optax.scale_by_adam() if direction is None else direction

    def init(params: Any) -> Alrs:
        return Alrs(jnp.zeros((), jnp.int32), inner.init(params))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Alrs]:
        full = rate(state.count // len(widths)) if callable(rate) else rate
        sizes = [jnp.minimum(jnp.max(jnp.abs(g)), 1.0) for g in jax.tree.leaves(updates)]
        if not sizes:
            raise ValueError("params hold no step that is learnt; alrs trains weights of quantize.double_rounding.")
        left = jnp.maximum(full - jnp.mean(jnp.stack(sizes)), least * full)
        own = left * jnp.asarray([eta(width) for width in widths])[state.count % len(widths)]
        moved, new = inner.update(updates, state.inner, params)
        return jax.tree.map(lambda u: -own * u, moved), Alrs(state.count + 1, new)

    steps = optax.GradientTransformation(init, update)
    return optax.partition({"step": steps, "other": others}, _labels)


def eta(bits: int) -> float:
    """The factor of a width: 1 at 8 bits, a tenth for every two bits less, half as much as above between."""
    drop = 8 - bits
    return 5 * 10.0 ** (-(drop + 1) // 2) if drop % 2 else 10.0 ** (-drop // 2)


def _labels(params: Any) -> Any:
    """Fields of leaves are attributes; the scale of a normalization is a key."""
    is_step = lambda path: jax.tree_util.keystr(path).endswith(".scale")  # noqa: E731
    return jax.tree_util.tree_map_with_path(lambda path, _: "step" if is_step(path) else "other", params)
