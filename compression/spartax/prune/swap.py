"""SWAP: all weights are pruned together, so that the network answers as before, and the kept ones move."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree

from spartax import checks, gradients
from spartax.prune.allocations.pooled import pooled
from spartax.prune.patterns.unstructured import unstructured
from spartax.prune.prune import allocated, prune
from spartax.prune.schedules.one_shot import one_shot
from spartax.prune.transport import plan
from spartax.records import (
    Allocation,
    Array,
    Criterion,
    Evidence,
    Finish,
    Path,
    Pattern,
    Schedule,
    Transform,
    Weights,
)

DIRECTIONS = ("paper_code", "exact")
GROWTH, TRIES, HALVINGS, CLOSE = 1.05, 100, 50, 1e-3
Top = Callable[[Array], Array]  # weights [P] -> bool mask [P] of what the sparsity keeps


def swap(
    sparsity: float = 0.9,
    allocation: Allocation | None = None,
    pattern: Pattern | None = None,
    schedule: Schedule | None = None,
    *,
    entropy: float | None = 1.0,
    ridge: float = 0.01,
    direction: str = "paper_code",
    rounds: int = 20,
) -> Transform:
    """Sparse entropic Wasserstein regression: `Masked` weights that lower `Q`, over all layers at once.

    With one gradient of the loss for each of n examples in the rows of `G [n, P]`, dense weights `w0 [P]` and
    `M_ij = ((G w0)_i - (G w)_j)^2`,

        Q(w) = n/2 <P, M> + n/2 ridge |w - w0|^2

    where the plan `P` of optimal transport between the numbers `G w0` and `G w` smooths over examples with noisy
    gradients; `P = I / n` is regression on the empirical Fisher information. Every round finds `P`, steps along
    `w - t d` and keeps what allocation and pattern choose by `|w|`: the best `t` for the present support; where the
    support would change before that, the last `t` that leaves it, and on from there while `Q` falls. `Q` never rises
    under one plan. The allocation should rank all weights together, as `prune.pooled()` does, or fix the counts.
    `G` is held in memory: some 100 to 1000 examples. In training, a schedule makes the stages of the paper.
    See You and Cheng, SWAP: Sparse Entropic Wasserstein Regression for Robust Network Pruning, arXiv 2310.04918.

    Args:
      sparsity: removed fraction, in [0, 1).
      allocation: counts of each weight; `prune.pooled()` when left out.
      pattern: which entries can go together; `prune.unstructured()` when left out.
      schedule: the sparsity at each training step; `prune.one_shot()` when left out.
      entropy: of the plan, in units of `M`, which scale with the gradients; 0: exact plan, infinity: all with all,
        None: `I / n`.
      ridge: weight of the distance from the dense weights.
      direction: `"paper_code"`, `G^T P (G w - G w0) + ridge (w - w0)`, of the authors' program, smooths both sides and
        is zero at `w0`; `"exact"`, the gradient of `Q`, smooths the side of `w0` alone.
      rounds: at most so many.

    Raises:
      ValueError: options out of range; at use, no labelled batches or loss, gradients that are zero everywhere, a
        weight that is compressed already.
    """
    checks.one_of("direction", direction, DIRECTIONS)
    checks.positive_int("rounds", rounds)
    checks.in_range("ridge", ridge, 0.0, float("inf"), open_high=True)
    if entropy is not None:
        checks.in_range("entropy", entropy, 0.0, float("inf"))
    allocation, pattern, schedule = allocation or pooled(), pattern or unstructured(), schedule or one_shot()

    def solve(weights: Weights, evidence: Evidence) -> tuple[Weights, Finish]:
        judge, batches = gradients.judged("swap", weights, evidence)
        dense, unravel = ravel_pytree(gradients.full(weights))
        target = sparsity if evidence.step is None else schedule.sparsity(sparsity, int(evidence.step))
        keys = {path: evidence.layouts[path] for path in weights}

        def top(w: Array) -> Array:
            scores = {path: jnp.abs(unravel(w)[path]) for path in keys}
            counts = allocated(allocation, pattern, scores, target, evidence)
            return ravel_pytree({p: pattern(s, counts[p], keys[p]) for p, s in scores.items()})[0]

        rows = jnp.concatenate([_gradients(judge, gradients.full(weights), *batch) for batch in batches])
        checks.finite("swap: the gradient of the loss", rows)
        checks.nonzero("swap: the gradient of the loss", [rows])
        solution = unravel(regress(Regression(rows, dense, ridge), top, entropy, direction, rounds)[0])

        def finish(path: Path, keep: int, pattern: Pattern) -> tuple[Array, Array]:
            return solution[path].astype(weights[path].dtype), pattern(jnp.abs(solution[path]), keep, keys[path])

        return {path: jnp.abs(solution[path]) for path in keys}, finish

    criterion = Criterion(frozenset({"objective"}), lambda weights, evidence: solve(weights, evidence)[0], solve)
    return prune(criterion, sparsity, allocation, pattern, schedule)


class Regression(NamedTuple):
    """The problem: gradients `[n, P]`, one row an example, dense weights `[P]` and the ridge."""

    rows: Array
    dense: Array
    ridge: float


def regress(
    problem: Regression, top: Top, entropy: float | None, direction: str, rounds: int
) -> tuple[Array, list[tuple[float, float]]]:
    """The sparse weights `[P]`, and `Q` before and after every round, under the plan of that round."""
    mask, values = top(problem.dense), []
    w = jnp.where(mask, problem.dense, 0)
    for _ in range(rounds):
        pi, d, best = look(problem, w, mask, entropy, direction)
        if not best > 0:
            break
        new, mask = _step(functools.partial(cost, problem, pi), top, w, mask, d, float(best))
        values.append((float(cost(problem, pi, w)), float(cost(problem, pi, new))))
        w = new
        if values[-1][1] >= values[-1][0] * (1 - 1e-6):
            break
    return w, values


@functools.partial(jax.jit, static_argnums=(3, 4))
def look(
    problem: Regression, w: Array, mask: Array, entropy: float | None, direction: str
) -> tuple[Array, Array, Array]:
    """The plan at `w`, the direction `d`, and the `t` at which `w - t d`, kept on its support, has the least cost."""
    rows, dense, ridge = problem
    n = len(rows)
    before, now = _dot(rows, dense), _dot(rows, w)
    pi = plan(before, now, entropy)
    pull = _dot(pi, now - before) if direction == "paper_code" else now - n * _dot(pi.T, before)
    d = _dot(pull, rows) + (1 if direction == "paper_code" else n) * ridge * (w - dense)
    along = jnp.where(mask, -d, 0)
    shift = _dot(rows, along)
    slope = _dot(now - n * _dot(pi.T, before), shift) + n * ridge * _dot(w - dense, along)
    bend = _dot(shift, shift) + n * ridge * _dot(along, along)
    return pi, d, jnp.where(bend > 0, -slope / jnp.where(bend > 0, bend, 1), 0)


@jax.jit
def cost(problem: Regression, pi: Array, w: Array) -> Array:
    """`Q(w)` under the plan `pi [n, n]`."""
    rows, dense, ridge = problem
    apart = jnp.square(_dot(rows, dense)[:, None] - _dot(rows, w))
    return len(rows) / 2 * (jnp.sum(pi * apart) + ridge * jnp.sum(jnp.square(w - dense)))


def _step(
    value: Callable[[Array], Array], top: Top, w: Array, mask: Array, d: Array, best: float
) -> tuple[Array, Array]:
    """The next weights and their mask."""

    def at(t: float) -> tuple[Array, Array]:
        kept = top(w - t * d)
        return jnp.where(kept, w - t * d, 0), kept

    new, kept = at(best)
    if bool(jnp.all(kept == mask)):
        return new, mask
    low, high = 0.0, best
    for _ in range(HALVINGS):
        if high - low <= CLOSE * high:
            break
        middle = (low + high) / 2
        low, high = (middle, high) if bool(jnp.all(at(middle)[1] == mask)) else (low, middle)
    new = jnp.where(mask, w - low * d, 0)
    least = value(new)
    for number in range(TRIES):
        other, kept = at(high * GROWTH**number)
        if value(other) >= least:
            break
        new, mask, least = other, kept, value(other)
    return new, mask


def _dot(a: Array, b: Array) -> Array:
    return jnp.dot(a, b, precision=lax.Precision.HIGHEST)


@jax.jit
def _gradients(judge: gradients.Judge, weights: Weights, x: Array, y: Array) -> Array:
    """One row `[P]` for each example."""
    one = lambda batch: ravel_pytree(jax.grad(gradients.looped(judge))(weights, batch[0][None], batch[1][None]))[0]  # noqa: E731
    return lax.map(one, (x, y))
