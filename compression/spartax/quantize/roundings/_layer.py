"""What roundings that look at the inputs of a layer share: its matrices, the error of its output, nearest as the limit.

For a layer `y = W x` with `H = E[x x^T]` the mean squared error of the output of codes that are off by D is
`tr(D H D^T)`, summed over outputs.
"""

import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from spartax import catalog, checks
from spartax.arrays import quantized, rows
from spartax.quantize.codes import decode, encode
from spartax.quantize.records import Grid, Part, Rounding, Scales
from spartax.records import Array, Layout, Path

PIECE = 256  # columns of a matrix that are multiplied at a time, at most
NEARLY_ALL = 0.75  # of the outputs whose codes would differ: nearest for so many is not the rounding that was asked for


class Problem(NamedTuple):
    """The matrices of a weight, each with a row for each output (`arrays.rows`).

    Attributes:
      matrix: floats `[..., O, I]`.
      scales: scale and zero point of every entry, `[..., O, I]`.
      kept: bool `[..., O, I]`, where a mask lies around the weight; None if every entry counts.
      moments: `E[x x^T]`, `[..., I, I]`.
      grid: the codes there are.
    """

    matrix: Array
    scales: Scales
    kept: Array | None
    moments: Array
    grid: Grid

    def values(self, codes: Array) -> Array:
        """What codes stand for; zero under the mask."""
        found = decode(codes, self.scales, self.grid).astype(self.matrix.dtype)
        return found if self.kept is None else jnp.where(self.kept, found, 0)

    def loss(self, codes: Array) -> Array:
        """`d H d^T` of every output, `[..., O]`; their sum is `tr(D H D^T)`."""
        change = self.values(codes) - self.matrix
        return quadratic(change, self.moments)


class Solution(NamedTuple):
    """What was found.

    Attributes:
      codes: int8 `[..., O, I]`.
      failed: bool `[...]`, the matrices for which nothing was found.
      notes: scalars to report.
    """

    codes: Array
    failed: Array
    notes: dict[str, Array]


Solve = Callable[[Problem, Any], Solution]  # (problem, options), both known where it is traced but for the arrays


def times(matrix: Array, moments: Array) -> Array:
    """`D H`, `[..., O, I]`."""
    return jnp.einsum("...oi,...ij->...oj", matrix, moments, precision=lax.Precision.HIGHEST)


def quadratic(matrix: Array, moments: Array) -> Array:
    """`d H d^T` of every row, `[..., O]`; pieces of the symmetric H that lie above the diagonal count twice."""
    inputs = matrix.shape[-1]
    piece = min(PIECE, inputs)
    cut = lambda a, number, axis=-1: lax.dynamic_slice_in_dim(a, number * piece, piece, axis)  # noqa: E731

    def columns(number: Array) -> Array:
        """The last piece begins early, so as to end with the matrix; what the one before has is zero in it."""
        late = jnp.maximum(number * piece - (inputs - piece), 0)
        return jnp.where(jnp.arange(piece) >= late, cut(matrix, number), 0)

    def add(i: Array, total: Array) -> Array:
        own, lines = columns(i), cut(moments, i)
        meet = lambda j, met: met + jnp.where(j < i, 2, 1) * times(columns(j), cut(lines, j, -2))  # noqa: E731
        return total + jnp.sum(own * lax.fori_loop(0, i + 1, meet, jnp.zeros_like(own)), axis=-1)

    return lax.fori_loop(0, -(-inputs // piece), add, jnp.zeros(matrix.shape[:-1], matrix.dtype))


def by_layer(name: str, solve: Solve, options: Any) -> Rounding:
    """A rounding that solves every matrix of a weight; outputs for which nearest loses less keep the nearest codes.

    It reports `nearest_loss` and `layer_loss`, the `tr(D H D^T)` of the nearest codes and of its own, summed over the
    matrices; `moved`, the share of entries that are not at their nearest code; `nearest_outputs`, how many outputs keep
    the nearest codes because those lose less, which warns from 3/4 of all that would get others on; `fallbacks`, how
    many matrices are all nearest because `solve` failed, which also warns; `dead_inputs`, how many inputs are always
    zero, whose weights no loss judges; and the notes of `solve`.

    Args:
      name: of the rounding, for messages.
      solve: what it does.
      options: its hashable second argument.
    """

    def report(weight: Array, scales: Scales, grid: Grid, part: Part) -> tuple[Array, dict[str, Array]]:
        moments = moments_of(name, weight, part)
        found, notes, others = _solved(weight, scales, part.kept, moments, solve, options, grid, part.layout)
        if checks.is_concrete(others):
            _warn(name, part.path, notes, math.prod(moments.shape[:-2]), int(others))
        return found, notes

    def codes(weight: Array, scales: Scales, grid: Grid, part: Part) -> Array:
        return report(weight, scales, grid, part)[0]

    return Rounding(frozenset({"moments"}), codes, report=report)


def _warn(name: str, path: Path, notes: dict[str, Array], matrices: int, others: int) -> None:
    """Of nearest codes in place of those that were asked for."""
    failed, back = int(notes["fallbacks"]), int(notes["nearest_outputs"])
    if failed:
        warnings.warn(
            f"{name}: {failed} of {matrices} matrices of {path} get the nearest codes, because the moments of their "
            "inputs cannot be factored.",
            stacklevel=3,
        )
    if back and back >= NEARLY_ALL * others:
        warnings.warn(
            f"{name}: {path} keeps the nearest codes for {back} of the {others} outputs that would get others, because "
            "they lose less there; more calibration data or other options may do.",
            stacklevel=3,
        )


def moments_of(name: str, weight: Array, part: Part) -> Array:
    """The moments of the inputs of a weight, of the right shape and not zero."""
    if not part.alone:
        raise ValueError(
            f"{name}: {part.path} is a sum or a product of arrays, or packed, and what flows into each of its arrays "
            "is not measured; quantize.nearest() rounds them, and what is pruned is quantized before sx.pack."
        )
    moments = catalog.need("moments", part.evidence).get(part.path)
    if moments is None:
        raise ValueError(f"{name}: the moments of {part.path} are missing; collect them on batches that reach it.")
    matrices = jax.eval_shape(lambda w: rows.to_rows(w, part.layout), weight).shape
    if moments.shape != (*matrices[:-2], matrices[-1], matrices[-1]):
        raise ValueError(f"{name}: {part.path} makes matrices {matrices}; got moments of shape {moments.shape}.")
    checks.finite(f"{name}: the moments of {part.path}", moments)
    checks.nonzero_layers(f"{name}: the input of {part.path}", moments, len(part.layout.stack))
    return moments


@jax.jit(static_argnums=(4, 5, 6, 7))
def _solved(
    weight: Array, scales: Scales, kept: Array | None, moments: Array,
    solve: Solve, options: Any, grid: Grid, layout: Layout,
) -> tuple[Array, dict[str, Array], Array]:  # fmt: skip
    """The codes of the weight, all there is to report, and how many outputs would not get nearest codes."""
    spread = lambda a: rows.to_rows(quantized.spread(a, weight.shape), layout)  # noqa: E731
    matrix, scales, kept = jax.tree.map(spread, (weight, scales, kept))
    problem = Problem(matrix, scales, kept, moments.astype(matrix.dtype), grid)
    near, found = encode(matrix, scales, grid), solve(problem, options)
    loss, nearest_loss = lax.map(problem.loss, jnp.stack([found.codes, near]))
    better, worse = ((a < b) & ~found.failed[..., None] for a, b in ((loss, nearest_loss), (nearest_loss, loss)))
    codes = jnp.where(better[..., None], found.codes, near)
    notes = {
        "nearest_loss": jnp.sum(nearest_loss),
        "layer_loss": jnp.sum(jnp.where(better, loss, nearest_loss)),
        "moved": jnp.mean(codes != near),
        "nearest_outputs": jnp.sum(worse),  # a tie loses nothing
        "fallbacks": jnp.sum(found.failed),
        "dead_inputs": jnp.sum(jnp.diagonal(moments, axis1=-2, axis2=-1) == 0),
    }
    return rows.from_rows(codes, weight.shape, layout), notes | found.notes, jnp.sum(better | worse)
