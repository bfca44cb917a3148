"""SparseGPT: weights are removed column by column while the ones to come make up for the error."""

import math
import warnings
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from spartax import catalog, checks
from spartax.arrays import rows
from spartax.kernels import error_feedback
from spartax.records import Array, Criterion, Evidence, Finish, Layout, Path, Pattern, Weights

MATRIX = Layout((1,), (0,))


def sparsegpt(block: int = 128, damping: float = 0.01) -> Criterion:
    """Score `w_ij^2 / [H^-1]_jj`, the output error `E ||dy||^2` of removing an entry while the rest makes up for it.

    `H = E[x x^T] + damping mean(diag H) I`, x the inputs of the weight (patches for a convolution) in the network as it
    was before pruning. Each matrix `[outputs, inputs]` is solved from its first column to its last: what goes is chosen
    by `w^2 / U_jj^2` (`H^-1 = U^T U`), block of columns by block, on the weights as earlier removals have moved them.
    Patterns with a `span` choose so (all entries of a block together; N:M in every group); others choose once, by the
    scores, before anything moves. The kept counts are exact. Inputs that are always zero lose their weights first. See
    Frantar and Alistarh, SparseGPT, arXiv 2301.00774.

    Args:
      block: columns that are decided together.
      damping: share of the mean of the diagonal that is added to it; raised tenfold, with a warning, where H cannot be
        factored.

    Raises:
      ValueError: bad options; at use, moments are missing, or zero everywhere for a weight.
    """
    checks.positive_int("block", block)
    checks.in_range("damping", damping, 0.0, 1.0)

    def solve(weights: Weights, evidence: Evidence) -> tuple[Weights, Finish]:
        moments = catalog.need("moments", evidence)
        factors = {path: _factor(path, moments[path], damping) for path in weights}
        scores = {path: _costs(w, *factors[path], evidence.layouts[path]) for path, w in weights.items()}

        def finish(path: Path, keep: int, pattern: Pattern) -> tuple[Array, Array]:
            layout, span = evidence.layouts[path], getattr(pattern, "span", None)
            chosen = None if span else pattern(scores[path], keep, layout)
            inputs = math.prod(weights[path].shape[a] for a in layout.inputs)
            size = _round_up(min(block, inputs), span or 1)
            group = span if span and span > 1 else size
            counts = _counts(keep, weights[path].size // inputs, inputs, range(0, _round_up(inputs, size) + 1, group))
            kind = {"pattern": pattern, "layout": layout, "block": size, "span": group}
            return _solve(weights[path], *factors[path], counts, chosen, **kind)

        return scores, finish

    return Criterion(frozenset({"moments"}), lambda weights, evidence: solve(weights, evidence)[0], solve)


def _round_up(n: int, step: int) -> int:
    return -(-n // step) * step


def _counts(keep: int, lines: int, inputs: int, ends: Iterable[int]) -> np.ndarray:
    """Kept entries between the ends, as even as whole numbers that add up to `keep` can be.

    A count that gives every line the same number of entries does so between any two ends.
    """
    unit = lines if keep % lines == 0 else 1
    before = [unit * ((2 * (keep // unit) * min(end, inputs) + inputs) // (2 * inputs)) for end in ends]
    return np.diff(before).astype(np.int32)


def _factor(path: Path, moments: Array, damping: float) -> tuple[Array, Array]:
    """R of the moments and which inputs are not dead; more damping where it takes that."""
    checks.nonzero(f"sparsegpt: the input of {path}", [moments])
    upper, alive = _factored(moments, damping)
    while checks.is_concrete(upper) and not bool(jnp.all(jnp.isfinite(upper))):
        damping = max(10 * damping, 1e-4)
        warnings.warn(
            f"sparsegpt: the moments of {path} cannot be factored; damping is raised to {damping}.", stacklevel=3
        )
        if damping > 1:
            raise ValueError(f"moments of {path} are not those of an input: even damping={damping} does not help.")
        upper, alive = _factored(moments, damping)
    return upper, alive


_factored = jax.jit(error_feedback.factor)


def _wide(weight: Array, layout: Layout) -> Array:
    return rows.to_rows(weight.astype(jnp.promote_types(weight.dtype, jnp.float32)), layout)


@jax.jit(static_argnums=3)
def _costs(weight: Array, upper: Array, alive: Array, layout: Layout) -> Array:
    inverse = error_feedback.inverse_diagonal(upper)
    cost = jnp.square(_wide(weight, layout)) * jnp.where(alive, 1 / inverse, 0)[..., None, :]
    return rows.from_rows(cost, weight.shape, layout)


@jax.jit(static_argnames=("pattern", "layout", "block", "span"))
def _solve(
    weight: Array, upper: Array, alive: Array, counts: Array, chosen: Array | None, *,
    pattern: Pattern, layout: Layout, block: int, span: int,
) -> tuple[Array, Array]:  # fmt: skip
    """The moved weight and its mask: the `chosen` one, or one found on the way."""
    matrix = jnp.where(alive[..., None, :], _wide(weight, layout), 0)
    inputs = matrix.shape[-1]
    padded = _round_up(inputs, block)
    fixed = None if chosen is None else error_feedback.widened(rows.to_rows(chosen, layout), padded)
    choose = _by_pattern(pattern, counts, inputs) if fixed is None else _looked_up(fixed)

    def settle(column: Array, mask: Array, number: Array) -> tuple[Array, Array]:
        kept = lax.dynamic_index_in_dim(mask, number, -1, keepdims=False)
        return jnp.where(kept, column, 0), kept

    matrix, upper = error_feedback.widened(matrix, padded), error_feedback.bordered(upper, padded)
    new, kept = error_feedback.replace_columns(matrix, upper, choose, settle, span=span, block=block)
    new, kept = (rows.from_rows(a[..., :inputs], weight.shape, layout) for a in (new, kept))
    return new.astype(weight.dtype), kept


def _by_pattern(pattern: Pattern, counts: Any, inputs: int) -> error_feedback.Choose:
    """The mask of a group of columns by what their removal costs now; columns that are not there go first."""

    def choose(columns: Array, diagonal: Array, start: Array) -> Array:
        span = columns.shape[-1]
        score = jnp.square(columns / diagonal[..., None, :])
        score = jnp.where(start + jnp.arange(span) < inputs, score, -jnp.inf)
        return pattern(score.reshape(-1, span), counts[start // span], MATRIX).reshape(score.shape)

    return choose


def _looked_up(mask: Array) -> error_feedback.Choose:
    return lambda columns, diagonal, start: lax.dynamic_slice_in_dim(mask, start, columns.shape[-1], axis=-1)
