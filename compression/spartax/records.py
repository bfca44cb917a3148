"""The records and function types that every part of Spartax shares.

A *path* names one weight of a params tree (`"block1/conv/kernel"`). Methods never see a whole tree: they see a flat
`Weights` dictionary of the selected arrays, which makes a global ranking one loop and gives reports their keys.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax

Path = str
Array = jax.Array
Params = Any  # pytree of arrays and compressed leaves
Weights = dict[Path, Any]  # path -> array, or compressed leaf, of the selected weights
ApplyFn = Callable[..., Array]  # apply_fn(params, x) -> logits [B, K]
LogitsFn = Callable[[Array], Array]  # x [B, ...] -> logits [B, K]
Rule = Callable[[Path, Any], bool]  # (path, weight) -> is it compressed?
Info = dict[Path, dict[str, Any]]  # what was done to each weight, JSON friendly
Loss = Callable[[Array, Array], Array]  # (logits [B, K], y [B]) -> one loss for each example, or their mean


class Layout(NamedTuple):
    """Which axes of a weight are contracted with the input, and which become the output.

    Attributes:
      inputs: axes summed over; spatial axes first, the input-feature axis last: `(0,)` for a Dense kernel `[in, out]`,
        `(0, 1, 2)` for a convolution kernel `[H, W, I, O]`, `(2, 3, 1)` for one stored `[O, I, H, W]`.
      outputs: axes that index output units.
      stack: leading axes that index independent copies (the layer axis of a scanned network).
      groups: feature groups of a convolution, 1 for everything else.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    stack: tuple[int, ...] = ()
    groups: int = 1


class Objective(NamedTuple):
    """The network as a function of the selected weights, with the data and the loss that judge it.

    What a method needs beyond gradients (per-example gradients, Hessian products, distortions) it computes from this.

    Attributes:
      logits: `(weights, x) -> logits [B, K]` of the network with these dense weights (path -> array) in place.
      batches: `x`, or `(x, y)`, of every batch; shapes alone for methods that need no values.
      loss: `(logits, y) -> [B]`, or its mean; None when none was given.
      others: the floating weights that are not selected (biases, norms); `logits` takes new values of them too.
    """

    logits: Callable[[Weights, Array], Array]
    batches: tuple[Any, ...]
    loss: Loss | None = None
    others: Weights | None = None


class Evidence(NamedTuple):
    """All that a method may learn about the network; every field it needs must be present.

    Attributes:
      layouts: path -> `Layout` of every selected weight (its keys are the selection).
      key: PRNG key, for methods that draw.
      originals: path -> the dense weight before any transform, for methods that compensate an error.
      uses: path -> tuple of `program.Use`, how the program uses the weight (costs in MACs).
      grads: path -> gradient of the loss in the weight, same shape.
      moments: path -> `E[x x^T]` of the inputs of the weight, as `program.collect` gives it, `[*stack, I, I]`.
      means: path -> `E[x]` of the inputs, `[*stack, I]`.
      magnitudes: path -> `E|x|` of the inputs, `[*stack, I]`.
      signals: path -> second moment of the output gradients, `[*stack, O, O]`.
      ranges: path -> smallest and largest input, zero included, `[*stack, 2]`.
      histograms: path -> counts of the inputs, `[*stack, bins]`, in equal bins from `-m` to `m`, the largest size of
        an input in `ranges`.
      biases: path of a weight -> path of the vector that the program adds to its output, where there is one.
      peaks: path -> `max |x|` of the inputs, `[*stack, I]`.
      scalings: `program.Scalings`, which weights can hand factors per channel to each other.
      objective: the network as a function of the weights, with data and loss.
      step: number of training steps done, for methods that follow a schedule; None outside training.
      prices: name of a matrix -> bytes of its factors: those at any rank, those of one direction, and those of the
        dense weight. `lowrank.factorize` tells them to its rank rule.
      corrections: whether the matrices of a rank rule are errors, which are corrected or left: none becomes dense.
    """

    layouts: Mapping[Path, Layout]
    key: Array | None = None
    originals: Mapping[Path, Array] | None = None
    uses: Mapping[Path, tuple] | None = None
    grads: Mapping[Path, Array] | None = None
    moments: Mapping[Path, Array] | None = None
    means: Mapping[Path, Array] | None = None
    magnitudes: Mapping[Path, Array] | None = None
    signals: Mapping[Path, Array] | None = None
    ranges: Mapping[Path, Array] | None = None
    histograms: Mapping[Path, Array] | None = None
    biases: Mapping[Path, Path] | None = None
    peaks: Mapping[Path, Array] | None = None
    scalings: Any = None
    objective: Objective | None = None
    step: int | None = None
    prices: Mapping[Path, tuple[float, float, float]] | None = None
    corrections: bool = False


class Criterion(NamedTuple):
    """Which weights matter.

    Attributes:
      needs: fields of the evidence that must be there.
      score: `(weights, evidence) -> scores`, one float score per entry; **higher = keep**.
      solve: for criteria that also move the weights they keep: `(weights, evidence) -> (scores, finish)`, whose
        `finish(path, keep, pattern) -> (weight, mask)` is asked once for each weight when the counts are known. What
        both halves need is computed once. None when the kept weights stay as they are.
    """

    needs: frozenset[str]
    score: Callable[[Weights, Evidence], Weights]
    solve: Callable[[Weights, Evidence], tuple[Weights, "Finish"]] | None = None


class Allocation(Protocol):
    """How many entries each weight keeps: `(scores, sparsity, evidence) -> {path: kept count}`.

    The counts add up to `round((1 - sparsity) * n)` over all weights together (allocations that fix a ratio per weight
    round each weight on its own); one whose sparsity is that of something else (time, multiply-adds) has the attribute
    `fixes_total = False`. One that needs evidence says so with the attribute `needs`, as a criterion does. A score of
    minus infinity is that of an entry which cannot be kept.

    `foresee(shapes, sparsity, evidence)`, where there is one, is asked before anything is measured, with
    `jax.ShapeDtypeStruct` in place of the scores: it raises what is known to be wrong by then, and gives the counts
    where the scores play no part, else None.
    """

    def __call__(self, scores: Weights, sparsity: float, evidence: Evidence) -> dict[Path, int]:
        """Kept count of every path."""
        ...


class Pattern(Protocol):
    """Which entries are kept: `(score, keep, layout) -> bool mask` of the score's shape with exactly `keep` ones.

    A pattern with a fixed ratio (N:M) declares it with the attribute `sparsity`; `keep` must then agree with it. One
    that may be asked for a few input columns of a matrix `[outputs, inputs]` at a time, whatever it said about the
    others, declares how many it needs together with the attribute `span` (1: any; N:M: m). One of whole units (blocks,
    channels) has `unit(shape, layout)`, the entries of a unit, of which counts are made multiples, and
    `spread(score, layout)`, the score of its unit for every entry, which the allocation ranks.
    """

    def __call__(self, score: Array, keep: int, layout: Layout) -> Array:
        """The mask."""
        ...


Finish = Callable[[Path, int, Pattern], tuple[Array, Array]]  # (path, keep, pattern) -> (weight, mask)


class Schedule(NamedTuple):
    """When pruning happens.

    Attributes:
      sparsity: `(final sparsity, step) -> sparsity` in [0, final sparsity] after `step` training steps; constant
        between two steps that are due.
      due: `step -> bool`: whether masks are refreshed before training step `step`, counted from 0.
      forgets: whether removed entries become zero, so that those that return start from there; if not, they keep the
        value they had under the mask.
    """

    sparsity: Callable[[float, int], float]
    due: Callable[[int], bool]
    forgets: bool = False


def _at_the_start(step: int) -> bool:
    return step == 0


class Transform(NamedTuple):
    """One compression method, one-shot or in training.

    `init(params, evidence) -> (params, state)` wraps the selected weights in compressed leaves **once**: the tree
    structure is final from then on, so refreshing never retraces and optimiser state stays valid.
    `update(params, state, evidence) -> (params, state, info)` refreshes masks, codes or factors.
    `check(params, evidence)`, where there is one, raises what is known to be wrong from shapes and layouts alone,
    before anything is measured.
    `due(step)` says whether a training loop calls `update` before its step number `step`, counted from 0.
    """

    needs: frozenset[str]
    init: Callable[[Params, Evidence], tuple[Params, Any]]
    update: Callable[[Params, Any, Evidence], tuple[Params, Any, Info]]
    check: Callable[[Params, Evidence], None] | None = None
    due: Callable[[int], bool] = _at_the_start


class Factorization(NamedTuple):
    """How a weight becomes thin factors.

    Attributes:
      needs: fields of the evidence, one array for each weight.
      unfold: `(weight, layout) -> {name: matrix [*stack, m, n]}`, the matrices whose ranks are chosen: one, with the
        name "", for most factorizations; none where the weight is not of the kind that this one splits.
      build: `(weight, layout, {name: rank}, {need: array}) -> leaf`.
      nested: whether the factors of a rank begin with those of every smaller one, as those of an SVD do.
      span: `(weight, layout, {need: array}) -> [*stack]`, how many directions the evidence tells apart; a rank above
        is refused. None, or a function that gives None, where any number is told apart.
      moving: for iterations that need not have settled, `(weight, layout, leaf) -> []`: how far one more round would
        move the leaf, relative to the norm of the weight. None where there is nothing to settle.
      centred: whether it is given means also where the evidence has no bias that gives them back; zeros if not.
    """

    needs: frozenset[str]
    unfold: Callable[[Array, Layout], dict[str, Array]]
    build: Callable[[Array, Layout, dict[str, int], Mapping[str, Array]], Any]
    nested: bool = False
    span: Callable[[Array, Layout, Mapping[str, Array]], Array | None] | None = None
    moving: Callable[[Array, Layout, Any], Array] | None = None
    centred: bool = False


class Ranks(Protocol):
    """`({name: matrix [*stack, m, n]}, evidence) -> {name: rank}`; a matrix left out stays dense.

    The name is the path of the weight, or `path#unfolding` where a factorization asks for several ranks. A rule that
    needs fields of the evidence declares them with the attribute `needs`, a frozenset.
    """

    def __call__(self, matrices: Weights, evidence: Evidence) -> dict[Path, int]:
        """Rank of every path."""
        ...


class Attack(Protocol):
    """`attack(key, logits_fn, x, y, *, index=None) -> x_adv` of the shape of `x`; pure and jittable.

    Args:
      key: one PRNG key; example `i` uses `fold_in(key, index[i])`, so that its result does not depend on the batch.
      logits_fn: `x [B, H, W, C] in [0, 1] -> logits [B, K]`.
      x: clean images, float32 in [0, 1].
      y: labels, int32 [B].
      index: dataset index of each row, int32 [B]; the row number when left out.
    """

    def __call__(self, key: Array, logits_fn: LogitsFn, x: Array, y: Array, *, index: Array | None = None) -> Array:
        """The adversarial images."""
        ...
