"""`inspect` and `explain`: how the program uses each weight, and which kernel each use will hit."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from spartax import tree
from spartax.arrays import verbs
from spartax.arrays.use import Use
from spartax.program import rules, walk
from spartax.records import Array, Layout, Params, Path


class Usage(NamedTuple):
    """How the program uses one weight.

    Attributes:
      layout: contracted, output and stack axes of the weight as it is stored, or None if it is never contracted.
      uses: every contraction with it.
      plans: for each use, the kernel and the cost with the weight as it is now (dense or compressed).
      others: for every other operation that reads it: (primitive, what becomes of the weight).
      macs: multiply-adds per example of the dense weight.
      macs_now: multiply-adds per example of the weight as it is now.
      shape: shape of the weight.
    """

    layout: Layout | None
    uses: tuple[Use, ...]
    plans: tuple[verbs.Plan, ...]
    others: tuple[tuple[str, str], ...]
    macs: int
    macs_now: int
    shape: tuple[int, ...]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Tagged(verbs.Leaf):
    """A weight that knows its path while the program is walked.

    Attributes:
      value: the array or leaf.
      path: where it comes from.
      axes: for each trailing axis of the value, the axes of the stored weight it is made of. A scan slices leading
        axes off without touching this, so the entries in front of the last `ndim` are stack axes.
    """

    value: Any
    path: Path = dataclasses.field(metadata={"static": True})
    axes: tuple[tuple[int, ...], ...] = dataclasses.field(metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the value."""
        return tuple(self.value.shape)

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the value."""
        return verbs.float_dtype(self.value)


@verbs.dense.register
def _(leaf: Tagged) -> Array:
    return verbs.dense(leaf.value) if verbs.is_leaf(leaf.value) else leaf.value


@verbs.sliceable.register
def _(leaf: Tagged) -> bool:
    return verbs.sliceable(leaf.value)


class _Log:
    """What was seen during one walk."""

    def __init__(self) -> None:
        self.uses: dict[Path, list[tuple[Use, verbs.Plan, Layout]]] = {}
        self.others: dict[Path, list[tuple[str, str]]] = {}

    def visit(self, eqn: Any, values: list[Any], trips: int) -> list[Any] | None:
        """Note what the equation does with each tagged weight, then do it to the weights underneath."""
        tags = [v for v in values if isinstance(v, Tagged)]
        if eqn.primitive in walk.DESCEND:
            return None
        if eqn.primitive in rules.CONTRACTIONS:
            self._note_contraction(eqn, values, trips)
            return None
        plain = [v.value if isinstance(v, Tagged) else v for v in values]
        out = _rearranged(eqn, plain, trips) if len(tags) == 1 else None
        if out is None:
            for tag in tags:
                self._note_other(tag, eqn.primitive.name, "made dense" if verbs.is_leaf(tag.value) else "read")
            return None
        axes = _moved_axes(eqn, tags[0], out)
        if axes is None or eqn.primitive is rules.P.gather_p:
            self._note_other(tags[0], eqn.primitive.name, "rows looked up" if axes is None else "kept compressed")
            return [verbs.dense(out) if verbs.is_leaf(out) else out]
        return [Tagged(out, tags[0].path, axes)]

    def _note_contraction(self, eqn: Any, values: list[Any], trips: int) -> None:
        for i, tag in enumerate(values):
            if not isinstance(tag, Tagged):
                continue
            if eqn.primitive is rules.P.conv_general_dilated_p and i == 0:
                self._note_other(tag, eqn.primitive.name, "made dense: it is the image of the convolution")
                continue
            other = values[1 - i]
            use = Use.of(eqn.primitive, eqn.params, i == 0, tag, other, trips)
            plan = verbs.plan(tag.value, use) if verbs.is_leaf(tag.value) else verbs.Plan(None, "dense", use.macs)
            self.uses.setdefault(tag.path, []).append((use, plan, _stored_layout(use.layout, tag)))

    def _note_other(self, tag: Tagged, name: str, what: str) -> None:
        self.others.setdefault(tag.path, []).append((name, what))


def _rearranged(eqn: Any, values: list[Any], trips: int) -> Any:
    """The weight after an operation that only rearranges it, or None."""
    if any(verbs.is_leaf(v) for v in values):
        out = rules.apply_rule(eqn, values, trips)
        return None if out is None else out[0]
    return walk.bind(eqn, values)[0] if eqn.primitive in rules.RULES else None


def _moved_axes(eqn: Any, tag: Tagged, out: Any) -> tuple[tuple[int, ...], ...] | None:
    """Which stored axes each axis of `out` is made of, or None if that is lost."""
    front, own = tag.axes[: len(tag.axes) - tag.ndim], tag.axes[len(tag.axes) - tag.ndim :]
    if eqn.primitive is rules.P.transpose_p:
        return (*front, *(own[a] for a in eqn.params["permutation"]))
    if eqn.primitive is rules.P.reshape_p:
        moved = _reshaped_axes(tag.shape, tuple(out.shape), own)
        return None if moved is None else (*front, *moved)
    if eqn.primitive is rules.P.squeeze_p and tuple(eqn.params["dimensions"]) != (0,):
        return None
    return None if eqn.primitive is rules.P.gather_p else tag.axes


def _reshaped_axes(old: tuple[int, ...], new: tuple[int, ...], own: tuple) -> tuple[tuple[int, ...], ...] | None:
    """Cut both shapes at their common products: inside a piece, every new axis is made of all its old axes."""
    moved: list[tuple[int, ...]] = []
    i = j = 0
    while i < len(old) or j < len(new):
        a, b, start_i, start_j = 1, 1, i, j
        while (i == start_i and j == start_j) or a != b:
            if (a <= b and i < len(old)) or j >= len(new):
                if i >= len(old):
                    return None
                a, i = a * old[i], i + 1
            else:
                b, j = b * new[j], j + 1
        piece = tuple(axis for group in own[start_i:i] for axis in group)
        moved += [piece] * (j - start_j)
    return tuple(moved)


def _stored_layout(layout: Layout, tag: Tagged) -> Layout:
    """The layout in axes of the stored weight."""
    hidden, own = tag.axes[: len(tag.axes) - tag.ndim], tag.axes[len(tag.axes) - tag.ndim :]

    def stored(axes: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(dict.fromkeys(a for axis in axes for a in own[axis]))

    stack = tuple(a for group in hidden for a in group) + stored(layout.stack)
    return Layout(stored(layout.inputs), stored(layout.outputs), stack, layout.groups)


def inspect(apply_fn: Callable[..., Any], params: Params, *args: Any) -> dict[Path, Usage]:
    """How the program `apply_fn(params, *args)` uses every floating weight of `params`.

    Nothing is computed: the program is walked on shapes. A body of `scan` counts as often as it runs; both branches of
    a `cond` count.

    Args:
      apply_fn: the function.
      params: arrays, compressed leaves or `jax.ShapeDtypeStruct`.
      *args: the other arguments, arrays or `jax.ShapeDtypeStruct`; the leading axis of the first one is the batch.

    Returns:
      `{path: Usage}` for every floating weight, in tree order.

    Raises:
      ValueError: the function does not accept these params or inputs.
    """
    log = _Log()

    def run(params: Params, args: tuple) -> None:
        jaxpr, _ = _trace(apply_fn, params, args)
        tagged = tree.replace(params, {p: _tag(p, w) for p, w in tree.weights(params).items() if tree.is_floating(w)})
        walk.walk(jaxpr, jax.tree.leaves((tagged, *args), is_leaf=verbs.is_leaf), log.visit)

    jax.eval_shape(run, params, args)
    leaves = jax.tree.leaves(args)
    batch = leaves[0].shape[0] if leaves and leaves[0].ndim else 1
    named = tree.weights(params)
    return {path: _usage(log, path, w, batch) for path, w in named.items() if tree.is_floating(w)}


def _trace(apply_fn: Callable[..., Any], params: Params, args: tuple) -> tuple[Any, Any]:
    try:
        return walk.trace(apply_fn, (params, *args), {})
    except Exception as error:
        shapes = ", ".join(f"{p} {tuple(w.shape)}" for p, w in list(tree.weights(params).items())[:6])
        raise ValueError(
            f"apply_fn(params, x) fails on these params and inputs: {error}\nparams begin with {shapes}"
        ) from error


def _tag(path: Path, weight: Any) -> Tagged:
    return Tagged(weight, path, tuple((a,) for a in range(len(weight.shape))))


def _usage(log: _Log, path: Path, weight: Any, batch: int) -> Usage:
    seen = log.uses.get(path, [])
    uses, plans = tuple(s[0] for s in seen), tuple(s[1] for s in seen)
    return Usage(
        layout=seen[0][2] if seen else None,
        uses=uses,
        plans=plans,
        others=tuple(log.others.get(path, ())),
        macs=math.ceil(sum(u.macs for u in uses) / max(batch, 1)),
        macs_now=math.ceil(sum(p.macs for p in plans) / max(batch, 1)),
        shape=tuple(weight.shape),
    )


def explain(apply_fn: Callable[..., Any], params: Params, *args: Any) -> dict[Path, tuple[str, ...]]:
    """For every floating weight, which kernel each of its uses hits, or where and why it is made dense.

    Args:
      apply_fn: the function.
      params: arrays or compressed leaves.
      *args: the other arguments, as in `inspect`.

    Returns:
      `{path: one line per use}`.
    """

    def lines(usage: Usage) -> tuple[str, ...]:
        hits = [f"{u.op}: {p.kernel or 'dense'} ({p.why})" for u, p in zip(usage.uses, usage.plans)]
        return (*hits, *(f"{name}: {what}" for name, what in usage.others)) or ("never read",)

    return {path: lines(usage) for path, usage in inspect(apply_fn, params, *args).items()}
