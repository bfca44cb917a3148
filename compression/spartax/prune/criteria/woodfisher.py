"""WoodFisher: the second-order cost of removing a weight while the weights around it make up for it."""

import math

import jax
import jax.numpy as jnp

from spartax import checks, gradients
from spartax.arrays import rows
from spartax.records import Array, Criterion, Evidence, Finish, Layout, Path, Pattern, Weights


def woodfisher(block: int = 1500, damping: float = 1e-5, group: int = 1) -> Criterion:
    """Score `w^2 / (2 [F^-1]_qq)`; kept weights move by `-w_q F^-1 e_q / [F^-1]_qq` for every removed q of their block.

    `F = damping I + (1/N) sum g g^T` over N gradients, in blocks of consecutive weights of a matrix (row by row, a row
    for each output); its inverse is built up one gradient at a time by the Sherman-Morrison formula. Memory is `block`
    times the weights. `prune.pooled()` compares the scores over all weights. See Singh and Alistarh, WoodFisher,
    arXiv 2004.14340.

    Args:
      block: weights in a block; a smaller matrix is one block.
      damping: added to the diagonal.
      group: examples whose mean loss gives one gradient; it must divide every batch.

    Raises:
      ValueError: bad options; at use, no labelled batches or loss, a loss that is not finite, gradients all zero.
    """
    checks.positive_int("block", block)
    checks.positive_int("group", group)
    checks.in_range("damping", damping, 1e-12, 1e6)

    def solve(weights: Weights, evidence: Evidence) -> tuple[Weights, Finish]:
        wide = gradients.full(weights)
        inverses = _inverse_fisher(wide, evidence, block, damping, group)
        scores = {path: _costs(w, inverses[path], evidence.layouts[path]) for path, w in wide.items()}

        def finish(path: Path, keep: int, pattern: Pattern) -> tuple[Array, Array]:
            mask = pattern(scores[path], keep, evidence.layouts[path])
            new = _moved(wide[path], inverses[path], mask, evidence.layouts[path])
            return new.astype(weights[path].dtype), mask

        return scores, finish

    return Criterion(frozenset({"objective"}), lambda weights, evidence: solve(weights, evidence)[0], solve)


def _inverse_fisher(weights: Weights, evidence: Evidence, block: int, damping: float, group: int) -> Weights:
    """`F^-1` of every weight, `[blocks, size, size]`."""
    judge, batches = gradients.judged("woodfisher", weights, evidence)
    for x, _ in batches:
        if len(x) % group:
            raise ValueError(f"group must divide every batch; got group={group} for a batch of {len(x)} examples.")
    layouts = tuple((path, evidence.layouts[path]) for path in weights)
    count = jnp.float32(sum(len(x) // group for x, _ in batches))
    inverses = {path: _start(w, min(block, w.size), damping) for path, w in weights.items()}
    for x, y in batches:
        loss, inverses = _refined(judge, layouts, group, inverses, weights, count, x, y)
        checks.finite("woodfisher: the loss", loss)
    learnt = [_diagonal(inverse) - 1 / damping for inverse in inverses.values()]
    checks.nonzero("woodfisher: the gradient of the loss", learnt)
    return inverses


@jax.jit(static_argnums=(1, 2), donate_argnums=3)
def _refined(
    judge: gradients.Judge, layouts: tuple, group: int,
    inverses: Weights, weights: Weights, count: Array, x: Array, y: Array,
) -> tuple[Array, Weights]:  # fmt: skip
    """The mean loss of a batch, and the inverses with its gradients."""
    known = dict(layouts)
    step = lambda inverses, g: {  # noqa: E731
        path: _with_gradient(inverse, _blocks(g[path], known[path], inverse.shape[-1]), count)
        for path, inverse in inverses.items()
    }
    return gradients.per_example(judge, weights, x, y, step, inverses, group)


def _blocks(x: Array, layout: Layout, size: int) -> Array:
    """`[blocks, size]`: the rows of the weight one after another, zeros at the end."""
    flat = rows.to_rows(x, layout).reshape(-1)
    return jnp.pad(flat, (0, -flat.size % size)).reshape(-1, size)


def _unblocked(blocks: Array, shape: tuple[int, ...], layout: Layout) -> Array:
    return rows.from_rows(blocks.reshape(-1)[: math.prod(shape)], shape, layout)


def _start(weight: Array, size: int, damping: float) -> Array:
    eye = jnp.eye(size, dtype=weight.dtype) / damping
    return jnp.tile(eye, (-(-weight.size // size), 1, 1))


def _with_gradient(inverse: Array, g: Array, count: Array) -> Array:
    """The inverse of `F + g g^T / count`, block by block."""
    v = jnp.einsum("bij,bj->bi", inverse, g)
    scale = count + jnp.sum(g * v, axis=-1)
    return inverse - v[:, :, None] * v[:, None, :] / scale[:, None, None]


def _diagonal(inverse: Array) -> Array:
    return jnp.diagonal(inverse, axis1=-2, axis2=-1)


@jax.jit(static_argnums=2)
def _costs(weight: Array, inverse: Array, layout: Layout) -> Array:
    cost = jnp.square(_blocks(weight, layout, inverse.shape[-1])) / (2 * _diagonal(inverse))
    return _unblocked(cost, weight.shape, layout)


@jax.jit(static_argnums=3)
def _moved(weight: Array, inverse: Array, mask: Array, layout: Layout) -> Array:
    """The weight that makes up for its removed entries, as far as each does on its own."""
    blocks = _blocks(weight, layout, inverse.shape[-1])
    removed = jnp.where(_blocks(mask, layout, inverse.shape[-1]), 0, blocks / _diagonal(inverse))
    new = blocks - jnp.einsum("bij,bj->bi", inverse, removed, precision=jax.lax.Precision.HIGHEST)
    return jnp.where(mask, _unblocked(new, weight.shape, layout), 0)
