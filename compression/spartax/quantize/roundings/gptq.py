"""GPTQ: codes are chosen column by column, while the columns to come make up for the error."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from spartax import checks
from spartax.kernels import error_feedback
from spartax.quantize.codes import encode
from spartax.quantize.records import Rounding
from spartax.quantize.roundings._layer import Problem, Solution, by_layer
from spartax.records import Array

ORDERS = ("given", "activation")
SPAN = 32  # columns between two products inside a block
RUNGS = (0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.09, 0.1, 1.0)


class Options(NamedTuple):
    """Of `gptq`; `rungs` are the dampings that are tried in turn."""

    rungs: tuple[float, ...]
    order: str
    block: int


def gptq(damping: float = 0.01, order: str = "given", block: int = 128) -> Rounding:
    """Every column to its nearest codes, and `W[:, j:] -= (w_j - q_j) / U_jj U[j, j:]` before the next.

    `U^T U = (H + damping mean(diag H) I)^-1`, `H = E[x x^T]` of the inputs (patches for a convolution) in the network
    as it was before quantization; the output error is `tr(D H D^T)` of the change D. The scales are those that the
    calibration found on the weight as it came, also of groups ("static groups"), so any grid and any order will do.
    Entries under a mask stay zero and their error is passed on too. Weights of inputs that are always zero go to their
    nearest codes. Frantar et al., GPTQ, arXiv 2210.17323.

    Where H cannot be factored the damping rises to 0.01, 0.02 ... 0.1 and 1; if that does not help either, the matrix
    gets the nearest codes, with a warning. Unlike in the paper, outputs for which nearest loses less keep the nearest
    codes, so that the loss is never above that of nearest. The report has `nearest_loss`, `layer_loss`, `moved` (share
    of entries that are not at their nearest code), `nearest_outputs` (how many outputs keep them because those
    lose less), `fallbacks` (matrices that could not be factored), `dead_inputs` (inputs that are always zero) and the
    largest `damping` that was taken.

    Args:
      damping: share of the mean of the diagonal of H that is added to it, in [0, 1].
      order: "given", the columns as they are; "activation", those of the largest diagonal of H first ("act-order"),
        which mostly loses less.
      block: columns that are settled before the rest is brought up to date; it changes the speed alone.

    Raises:
      ValueError: bad options; at use, moments that are missing, of another shape, not finite or zero, and a weight that
        is a sum or a product of arrays, each by its path.
    """
    checks.in_range("damping", damping, 0.0, 1.0)
    checks.one_of("order", order, ORDERS)
    checks.positive_int("block", block)
    rungs = (damping, *(rung for rung in RUNGS if rung > damping))
    return by_layer("gptq", _solve, Options(rungs, order, block))


def _solve(problem: Problem, options: Options) -> Solution:
    if options.order == "given":
        codes, failed, damping = _columns(problem, options)
    else:
        diagonal = jnp.diagonal(problem.moments, axis1=-2, axis2=-1)
        order = jnp.argsort(diagonal, axis=-1, descending=True, stable=True)
        codes, failed, damping = _columns(_permuted(problem, order), options)
        codes = _taken(codes, jnp.argsort(order, axis=-1))
    return Solution(codes, failed, {"damping": jnp.max(damping)})


def _taken(matrix: Array, order: Array) -> Array:
    """Columns of `[..., O, I]` in the order `[..., I]`."""
    return jnp.take_along_axis(matrix, order[..., None, :], axis=-1)


def _permuted(problem: Problem, order: Array) -> Problem:
    matrix, scales, kept, moments = jax.tree.map(lambda a: _taken(a, order), problem[:4])
    return Problem(matrix, scales, kept, jnp.take_along_axis(moments, order[..., None], axis=-2), problem.grid)


def _columns(problem: Problem, options: Options) -> tuple[Array, Array, Array]:
    """Codes `[..., O, I]`, and for each matrix whether it failed and the damping."""
    upper, failed, damping = _factor(problem.moments, options.rungs)
    inputs = problem.matrix.shape[-1]
    block = min(options.block, inputs)
    padded = -(-inputs // block) * block
    fixed = jax.tree.map(lambda a: _lengthened(a, padded), (problem.scales, problem.kept))

    def choose(columns: Array, diagonal: Array, start: Array) -> tuple:
        return jax.tree.map(lambda a: lax.dynamic_slice_in_dim(a, start, columns.shape[-1], axis=-1), fixed)

    def settle(column: Array, chosen: tuple, number: Array) -> tuple[Array, Array]:
        own = jax.tree.map(lambda a: lax.dynamic_index_in_dim(a, number, -1, keepdims=False), chosen)
        here = problem._replace(matrix=column, scales=own[0], kept=own[1])
        codes = encode(column if own[1] is None else jnp.where(own[1], column, 0), own[0], problem.grid)
        return here.values(codes), codes

    matrix, upper = error_feedback.widened(problem.matrix, padded), error_feedback.bordered(upper, padded)
    _, codes = error_feedback.replace_columns(matrix, upper, choose, settle, span=math.gcd(block, SPAN), block=block)
    return codes[..., :inputs], failed, damping


def _lengthened(matrix: Array, inputs: int) -> Array:
    """The last column again and again, up to `inputs` columns: scales of columns that are not there."""
    return jnp.pad(matrix, [(0, 0)] * (matrix.ndim - 1) + [(0, inputs - matrix.shape[-1])], mode="edge")


def _factor(moments: Array, rungs: tuple[float, ...]) -> tuple[Array, Array, Array]:
    """R of every matrix at the first damping that lets it be factored, whether none did (R is the identity), which."""
    levels, last = jnp.asarray(rungs, moments.dtype), len(rungs) - 1

    def climb(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        rung = jnp.minimum(carry[0] + carry[1], last)
        upper = error_feedback.factor(moments, levels[rung])[0]
        return rung, ~jnp.isfinite(upper[..., 0, 0]), upper  # all of it is NaN where it cannot be factored

    start = jnp.full(moments.shape[:-2], -1), jnp.ones(moments.shape[:-2], bool), jnp.zeros_like(moments)
    rung, failed, upper = lax.while_loop(lambda carry: jnp.any(carry[1] & (carry[0] < last)), climb, start)
    identity = jnp.eye(moments.shape[-1], dtype=upper.dtype)
    return jnp.where(failed[..., None, None], identity, upper), failed, levels[rung]
