"""`following`: walk a program while every weight knows its path and which of its stored axes it shows."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from spartax import tree
from spartax.arrays import verbs
from spartax.arrays.use import Use
from spartax.program import rules, walk
from spartax.records import Array, Layout, Params, Path

OnUse = Callable[["Tagged", Use, Any], list[Any] | None]  # (weight, use, activation) -> outputs, or None: as they are
OnRows = Callable[["Tagged", rules.Lookup, Array], list[Any] | None]  # (table, what is looked up, its rows) -> outputs
OnOther = Callable[["Tagged", str, str], None]  # (weight, primitive, what becomes of the weight)
_SLICES = ("squeeze", "slice", "dynamic_slice", "split")


class Part(NamedTuple):
    """What an axis of a value shows of the stored weight.

    Attributes:
      axes: the stored axes it is made of.
      place: where a reshape cut such axes up, which piece it is, and of that piece, and so on.
      size: entries along it.
    """

    axes: tuple[int, ...]
    place: tuple[int, ...]
    size: int


Parts = tuple[Part, ...]  # of one axis, the slowest first


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Tagged(verbs.Leaf):
    """A weight that knows its path while the program is walked.

    Attributes:
      value: the array or leaf.
      probes: arrays that travel with it; a stack of layers has a stack of them.
      path: where it comes from.
      axes: for each trailing axis of the value, the parts of the stored weight it is made of. A scan slices leading
        axes off without touching this, so the entries in front of the last `ndim` are stack axes.
    """

    value: Any
    probes: dict[str, Array]
    path: Path = dataclasses.field(metadata={"static": True})
    axes: tuple[Parts, ...] = dataclasses.field(metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the value."""
        return tuple(self.value.shape)

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the value."""
        return verbs.float_dtype(self.value)

    def stored(self, layout: Layout) -> Layout:
        """A layout in axes of the value, said in axes of the stored weight."""
        hidden = self.axes[: len(self.axes) - self.ndim]
        said = lambda axes: tuple(dict.fromkeys(a for part in self._parts(axes) for a in part.axes))  # noqa: E731
        stack = tuple(a for group in hidden for part in group for a in part.axes) + said(layout.stack)
        return Layout(said(layout.inputs), said(layout.outputs), stack, layout.groups)

    def shows(self, axes: Sequence[int], size: int) -> bool:
        """Whether these axes of the value hold `size` entries, in the order of the stored axes they are made of."""
        if math.prod(self.shape[a] for a in axes) != size:
            return False
        runs = [list(run) for _, run in itertools.groupby(self._parts(axes), key=lambda part: part.axes)]
        met = [a for run in runs for a in run[0].axes]
        rising = all(a.place < b.place for run in runs for a, b in itertools.pairwise(run))
        return rising and len(met) == len(set(met))

    def _parts(self, axes: Sequence[int]) -> list[Part]:
        own = self.axes[len(self.axes) - self.ndim :]
        return [part for axis in axes for part in own[axis]]


@verbs.dense.register
def _(leaf: Tagged) -> Array:
    return verbs.dense(leaf.value) if verbs.is_leaf(leaf.value) else leaf.value


@verbs.sliceable.register
def _(leaf: Tagged) -> bool:
    """Its probes too: they have the leading axis of a stack, and of no other weight."""
    probes = all(p.ndim > 0 and p.shape[0] == leaf.shape[0] for p in leaf.probes.values())
    return probes and verbs.sliceable(leaf.value)


def tagged(params: Params, paths: Iterable[Path], probes: dict[Path, dict[str, Array]] | None = None) -> Params:
    """The params with these weights tagged."""
    found = tree.pick(params, paths)
    start = {p: tuple((Part((a,), (), size),) for a, size in enumerate(w.shape)) for p, w in found.items()}
    return tree.replace(params, {p: Tagged(w, (probes or {}).get(p, {}), p, start[p]) for p, w in found.items()})


def following(on_use: OnUse, on_other: OnOther = lambda *_: None, on_rows: OnRows = lambda *_: None) -> walk.Visit:
    """The `visit` of a walk over tagged weights.

    A weight that is only rearranged stays tagged; every contraction with one is told to `on_use`, every other operation
    that reads one to `on_other`, and where that looks up rows of it to `on_rows` too.
    """

    def visit(eqn: Any, values: list[Any], trips: int) -> list[Any] | None:
        tags = [v for v in values if isinstance(v, Tagged)]
        if not tags or eqn.primitive in walk.DESCEND:
            return None
        if eqn.primitive in rules.CONTRACTIONS:
            return _contraction(eqn, values, trips, on_use, on_other)
        if eqn.primitive.name in _SLICES and isinstance(values[0], Tagged):
            layer = rules.apply_rule(eqn, values, trips)  # out of a stack, with its own probes
            if layer is not None:
                return [dataclasses.replace(part, axes=_resized(part.axes, part.shape)) for part in layer]
        plain = [v.value if isinstance(v, Tagged) else v for v in values]
        outputs = _rearranged(eqn, plain, trips) if len(tags) == 1 else None
        if outputs is None:
            for tag in tags:
                on_other(tag, eqn.primitive.name, "made dense" if verbs.is_leaf(tag.value) else "read")
            return None
        moved = [(out, _moved_axes(eqn, tags[0], out)) for out in outputs]
        shown = [Tagged(out, tags[0].probes, tags[0].path, axes) for out, axes in moved if axes is not None]
        if not shown:
            gathered = eqn.primitive is rules.P.gather_p and isinstance(values[0], Tagged)
            on_other(tags[0], eqn.primitive.name, "rows looked up" if gathered else "read")
            found = rules.looked_up(eqn, *values) if gathered else None
            dense = [verbs.dense(out) if verbs.is_leaf(out) else out for out in outputs]
            return (None if found is None else on_rows(tags[0], found, dense[0])) or dense
        return shown

    return visit


def _contraction(eqn: Any, values: list[Any], trips: int, on_use: OnUse, on_other: OnOther) -> list[Any] | None:
    outputs = None
    for i, tag in enumerate(values):
        if not isinstance(tag, Tagged):
            continue
        if eqn.primitive is rules.P.conv_general_dilated_p and i == 0:
            on_other(tag, eqn.primitive.name, "made dense: it is the image of the convolution")
            continue
        other = values[1 - i]
        told = on_use(tag, Use.of(eqn.primitive, eqn.params, i == 0, tag, other, trips), other)
        outputs = told if outputs is None else outputs
    return outputs


def _rearranged(eqn: Any, values: list[Any], trips: int) -> list[Any] | None:
    """The weight, or its pieces, after an operation that only rearranges it, or None."""
    if any(verbs.is_leaf(v) for v in values):
        return rules.apply_rule(eqn, values, trips)
    return walk.bind(eqn, values) if rules.rule_of(eqn) else None


def _moved_axes(eqn: Any, tag: Tagged, out: Any) -> tuple[Parts, ...] | None:
    """Which stored axes each axis of `out` is made of, or None if that is lost."""
    front, own = tag.axes[: len(tag.axes) - tag.ndim], tag.axes[len(tag.axes) - tag.ndim :]
    if eqn.primitive is rules.P.transpose_p:
        return (*front, *(own[a] for a in eqn.params["permutation"]))
    if eqn.primitive is rules.P.reshape_p:
        moved = _reshaped_axes(tuple(out.shape), own)
        return None if moved is None else (*front, *moved)
    if eqn.primitive is rules.P.squeeze_p and tuple(eqn.params["dimensions"]) != (0,):
        gone = eqn.params["dimensions"]  # a part of the weight is no longer one of its axes
        return None if any(own[a] for a in gone) else (*front, *(own[a] for a in range(len(own)) if a not in gone))
    return None if eqn.primitive is rules.P.gather_p else _resized(tag.axes, tuple(out.shape))


def _resized(axes: tuple[Parts, ...], shape: tuple[int, ...]) -> tuple[Parts, ...]:
    """After a slice: an axis of several parts that is cut shows one piece of them all."""
    front, own = axes[: len(axes) - len(shape)], axes[len(axes) - len(shape) :]
    cut = lambda parts, size: parts if math.prod(p.size for p in parts) == size else (_piece(parts, size),)  # noqa: E731
    return (*front, *map(cut, own, shape))


def _piece(parts: Sequence[Part], size: int, *place: int) -> Part:
    axes = tuple(dict.fromkeys(a for part in parts for a in part.axes))
    return Part(axes, (*parts[0].place, *place) if parts else place, size)


def _reshaped_axes(new: tuple[int, ...], own: tuple[Parts, ...]) -> tuple[Parts, ...] | None:
    """Cut the parts and the new shape at their common products: inside such a cut, new axes are pieces of all parts.

    New axes of size one show nothing; parts of size one stay with a neighbor.
    """
    parts = [part for group in own for part in group]
    old, wide = [part.size for part in parts], [n for n in new if n != 1]
    moved: list[Parts] = []
    loose: Parts = ()
    i = j = 0
    while i < len(old) or j < len(wide):
        a, b, start_i, start_j = 1, 1, i, j
        while (i == start_i and j == start_j) or a != b:
            if (a <= b and i < len(old)) or j >= len(wide):
                if i >= len(old):
                    return None
                a, i = a * old[i], i + 1
            else:
                b, j = b * wide[j], j + 1
        met, sizes, loose = (*loose, *parts[start_i:i]), wide[start_j:j], ()
        if not sizes:
            moved, loose = ([*moved[:-1], (*moved[-1], *met)], ()) if moved else (moved, met)
        else:
            moved += [met] if len(sizes) == 1 else [(_piece(met, size, k),) for k, size in enumerate(sizes)]
    rest = iter(moved)
    return tuple(() if n == 1 else next(rest) for n in new)
