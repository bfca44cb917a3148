"""Which number of one cloud goes with which of another: plans of optimal transport on a line, at squared distance."""

import jax
import jax.numpy as jnp
from jax import lax

from spartax.records import Array

STEPS, TOLERANCE = 5000, 1e-6


def plan(source: Array, target: Array, entropy: float | None) -> Array:
    """`argmin <P, M> + entropy sum P (log P - 1)`, `M_ij = (source_i - target_j)^2`, every row and column of sum `1/n`.

    Sinkhorn's iteration on the logarithms, so that no entropy is too small for it, until the rows are right to
    `TOLERANCE / n` or `STEPS` are done; the columns are exact. See Cuturi, Sinkhorn Distances, arXiv 1306.0895.

    Args:
      source: `[n]`.
      target: `[n]`.
      entropy: in units of `M`. 0 is the exact plan, which joins equal ranks; infinity joins all with all; None joins
        each with its own, `I / n`.

    Returns:
      `[n, n]`.
    """
    n = len(source)
    if entropy is None:
        return jnp.eye(n, dtype=source.dtype) / n
    if entropy == 0:
        return jnp.zeros((n, n), source.dtype).at[jnp.argsort(source), jnp.argsort(target)].set(1 / n)
    kernel = -jnp.square(source[:, None] - target) / entropy
    level = -jnp.log(jnp.asarray(n, kernel.dtype))

    def columns(rows: Array) -> Array:
        return level - jax.nn.logsumexp(kernel + rows[:, None], axis=0)

    def unsettled(state: tuple[Array, Array, Array]) -> Array:
        step, _, error = state
        return (step < STEPS) & (error > TOLERANCE)

    def sweep(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        step, rows, _ = state
        new = level - jax.nn.logsumexp(kernel + columns(rows), axis=1)
        return step + 1, new, jnp.max(jnp.abs(jnp.expm1(rows - new)))  # how far the rows were from 1/n

    start = (jnp.zeros((), jnp.int32), jnp.zeros(n, kernel.dtype), jnp.asarray(jnp.inf, kernel.dtype))
    rows = lax.while_loop(unsettled, sweep, start)[1]
    return jnp.exp(kernel + rows[:, None] + columns(rows))
