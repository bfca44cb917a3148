"""`following`: walk a program while every weight knows its path and which of its stored axes it shows."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

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
_SLICES = (rules.P.squeeze_p, rules.P.slice_p, rules.P.dynamic_slice_p)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Tagged(verbs.Leaf):
    """A weight that knows its path while the program is walked.

    Attributes:
      value: the array or leaf.
      probes: arrays that travel with it; a stack of layers has a stack of them.
      path: where it comes from.
      axes: for each trailing axis of the value, the axes of the stored weight it is made of. A scan slices leading
        axes off without touching this, so the entries in front of the last `ndim` are stack axes.
    """

    value: Any
    probes: dict[str, Array]
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

    def stored(self, layout: Layout) -> Layout:
        """A layout in axes of the value, said in axes of the stored weight."""
        hidden, own = self.axes[: len(self.axes) - self.ndim], self.axes[len(self.axes) - self.ndim :]

        def said(axes: tuple[int, ...]) -> tuple[int, ...]:
            return tuple(dict.fromkeys(a for axis in axes for a in own[axis]))

        stack = tuple(a for group in hidden for a in group) + said(layout.stack)
        return Layout(said(layout.inputs), said(layout.outputs), stack, layout.groups)


@verbs.dense.register
def _(leaf: Tagged) -> Array:
    return verbs.dense(leaf.value) if verbs.is_leaf(leaf.value) else leaf.value


@verbs.sliceable.register
def _(leaf: Tagged) -> bool:
    return verbs.sliceable(leaf.value)


def tagged(params: Params, paths: Iterable[Path], probes: dict[Path, dict[str, Array]] | None = None) -> Params:
    """The params with these weights tagged."""
    found = tree.pick(params, paths)
    start = {p: tuple((a,) for a in range(len(w.shape))) for p, w in found.items()}
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
        if eqn.primitive in _SLICES and isinstance(values[0], Tagged):
            layer = rules.apply_rule(eqn, values, trips)  # out of a stack, with its own probes
            if layer is not None:
                return layer
        plain = [v.value if isinstance(v, Tagged) else v for v in values]
        out = _rearranged(eqn, plain, trips) if len(tags) == 1 else None
        if out is None:
            for tag in tags:
                on_other(tag, eqn.primitive.name, "made dense" if verbs.is_leaf(tag.value) else "read")
            return None
        axes = _moved_axes(eqn, tags[0], out)
        if axes is None or eqn.primitive is rules.P.gather_p:
            on_other(tags[0], eqn.primitive.name, "rows looked up" if axes is None else "kept compressed")
            rows = verbs.dense(out) if verbs.is_leaf(out) else out
            gathered = eqn.primitive is rules.P.gather_p and isinstance(values[0], Tagged)
            found = rules.looked_up(eqn, *values) if gathered else None
            return (None if found is None else on_rows(tags[0], found, rows)) or [rows]
        return [Tagged(out, tags[0].probes, tags[0].path, axes)]

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
