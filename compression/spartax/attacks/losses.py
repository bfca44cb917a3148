"""Losses that attacks maximize: `(logits [B, K], y [B]) -> [B]`, higher is better for the attacker.

The targeted ones take the class to reach as a third argument, `targets [B]`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from spartax.records import Array

Loss = Callable[..., Array]  # (logits [B, K], y [B]) or (logits [B, K], y [B], targets [B]) -> [B]
TINY = 1e-12


def chosen(logits: Array, y: Array) -> Array:
    """Mask of the entries `[i, y[i]]`, bool [B, K]."""
    return jnp.arange(logits.shape[1]) == y[:, None]


def pick(logits: Array, y: Array) -> Array:
    """`logits[i, y[i]]` for every example, [B] (as a masked sum: a gather would not stay sharded)."""
    return jnp.sum(jnp.where(chosen(logits, y), logits, 0.0), axis=1)


def top(logits: Array, count: int) -> tuple[Array, Array]:
    """The `count` largest logits in decreasing order and their classes, both [B, count]."""
    if logits.shape[1] < count:
        raise ValueError(f"this loss needs at least {count} classes; logits has {logits.shape[1]}.")
    return jax.lax.top_k(logits, count)


def cross_entropy(logits: Array, y: Array) -> Array:
    """`log sum_c exp z_c - z_y`."""
    return jax.nn.logsumexp(logits, axis=1) - pick(logits, y)


def margin(logits: Array, y: Array) -> Array:
    """`max_{c != y} z_c - z_y`: positive exactly when misclassified (Carlini and Wagner, arXiv 1608.04644)."""
    return jnp.max(jnp.where(chosen(logits, y), -jnp.inf, logits), axis=1) - pick(logits, y)


def dlr(logits: Array, y: Array) -> Array:
    """Difference of logits ratio `-(z_y - m) / (z_(1) - z_(3) + 1e-12)`, m the largest other logit.

    Invariant to shifting and scaling the logits (Croce and Hein, AutoAttack, arXiv 2003.01690). Needs K >= 3.
    """
    best, classes = top(logits, 3)
    other = jnp.where(classes[:, 0] == y, best[:, 1], best[:, 0])
    return -(pick(logits, y) - other) / (best[:, 0] - best[:, 2] + TINY)


def margin_targeted(logits: Array, y: Array, targets: Array) -> Array:
    """`z_t - z_y`."""
    return pick(logits, targets) - pick(logits, y)


def dlr_targeted(logits: Array, y: Array, targets: Array) -> Array:
    """`-(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2 + 1e-12)` (AutoAttack, arXiv 2003.01690). Needs K >= 4."""
    best, _ = top(logits, 4)
    scale = best[:, 0] - 0.5 * (best[:, 2] + best[:, 3]) + TINY
    return -(pick(logits, y) - pick(logits, targets)) / scale


def ce_targeted(logits: Array, y: Array, targets: Array) -> Array:
    """Minus the cross-entropy of the target class."""
    del y
    return -cross_entropy(logits, targets)
