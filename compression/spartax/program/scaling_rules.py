"""What each operation does to a value that is divided by a positive factor per channel.

An operation without a rule refuses every mark that enters it, which is always right: what is refused is never scaled.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from spartax.program import walk
from spartax.program.factors import factors
from spartax.program.scaling_contractions import conv, dot
from spartax.program.scaling_marks import Book, Param, Plain, Scaled

Rule = Callable[[Book, Any, list[Any]], Any]  # -> Scaled or Plain; a str is why not, None: an unknown operation
INLINED = ("jaxpr", "call_jaxpr")
CALLS = ("jit", "pjit", "closed_call", "custom_jvp_call", "remat", "remat2", "checkpoint")


def walked(book: Book, jaxpr: Any, values: Sequence[Any]) -> list[Any]:
    """Walk a program on marks alone."""

    def visit(eqn: Any, values: list[Any], trips: int) -> list[Any]:
        name = eqn.primitive.name
        if name in CALLS:
            inner = next(eqn.params[key] for key in INLINED if key in eqn.params)
            return walked(book, inner, values)
        made = _one(book, eqn, values)
        return [made] * len(eqn.outvars)

    return walk.walk(jaxpr, values, visit, everywhere=True)


def _one(book: Book, eqn: Any, values: list[Any]) -> Any:
    """The mark of the result."""
    name = eqn.primitive.name
    marked = [v for v in values if isinstance(v, Scaled | Param)]
    if name in CONTRACTIONS and marked:
        made = CONTRACTIONS[name](book, eqn, values)
    elif name in KEPT and jnp.issubdtype(eqn.outvars[0].aval.dtype, jnp.floating):
        return values[0]
    elif not marked:
        return _plain(eqn, values)
    elif name == "transpose" and isinstance(values[0], Param):
        return Param(values[0].path, tuple(values[0].axes[a] for a in eqn.params["permutation"]))
    elif name in RULES:
        made = RULES[name](book, eqn, [book.vector(v) if isinstance(v, Param) else v for v in values])
    else:
        made = None
    if isinstance(made, Plain) or (isinstance(made, Scaled) and made.index.ndim == len(eqn.outvars[0].aval.shape)):
        return made
    why = made if isinstance(made, str) else f"read by {name}"
    for value in marked:
        book.refuse(value, why)
    return Plain(why)


def _plain(eqn: Any, values: list[Any]) -> Any:
    """Constants spread over an array stay constants."""
    known = [v.why for v in values if isinstance(v, Plain)]
    if not known and eqn.primitive.name == "broadcast_in_dim":
        return values[0]
    return Plain(known[0] if known else "a constant of the program")


def _is_zero(value: Any) -> bool:
    return not isinstance(value, Scaled | Plain) and not np.any(np.asarray(value))


def _alike(values: Sequence[Any]) -> Scaled | None:
    """The common mark of values of which the others are zero."""
    first, *rest = [v for v in values if not _is_zero(v)] or [None]
    if not isinstance(first, Scaled):
        return None
    for other in rest:
        if not isinstance(other, Scaled) or other.root != first.root or not np.array_equal(other.index, first.index):
            return None
    return Scaled(first.root, first.index)


def _add(book: Book, eqn: Any, values: list[Any]) -> Any:
    alike = _alike(values)
    pure = [v for v in values if isinstance(v, Scaled) and v.pure]
    if alike is not None:
        return alike
    if len(pure) == 1 and all(isinstance(v, Scaled) for v in values):
        other = values[1] if pure[0] is values[0] else values[0]
        return book.join(pure[0], other)
    return "added to a value that the same factors do not scale"


def _mul(book: Book, eqn: Any, values: list[Any]) -> Any:
    """A product with an unscaled value passes. Of two marks one stays: that of a vector (the scale of a norm)."""
    marks = [v for v in values if isinstance(v, Scaled)]
    if len(marks) == 2:
        if marks[0].root == marks[1].root:
            return "multiplied by itself"
        lost, kept = sorted(marks, key=lambda v: (v.root not in book.uses, not v.pure))
        book.refuse(lost, f"multiplied by {kept.root}, which takes the factors in its place")
        marks = [kept]
    return Scaled(marks[0].root, marks[0].index)


def _div(book: Book, eqn: Any, values: list[Any]) -> Any:
    above, below = values
    return None if isinstance(below, Scaled) else Scaled(above.root, above.index)


def _largest(book: Book, eqn: Any, values: list[Any]) -> Any:
    return _alike(values)


def _compared(book: Book, eqn: Any, values: list[Any]) -> Any:
    return None if _alike(values) is None else Plain("a comparison")


def _select(book: Book, eqn: Any, values: list[Any]) -> Any:
    return None if isinstance(values[0], Scaled) else _alike(values[1:])


def _unary(book: Book, eqn: Any, values: list[Any]) -> Any:
    return Scaled(values[0].root, values[0].index)


def _moved(change: Callable[[Any, np.ndarray], np.ndarray | None]) -> Rule:
    """Operations that move the entries of one value, which stays what it is."""

    def rule(book: Book, eqn: Any, values: list[Any]) -> Any:
        index = change(eqn, values[0].index) if isinstance(values[0], Scaled) else None
        return None if index is None else Scaled(values[0].root, index, values[0].pure)

    return rule


def _broadcast(eqn: Any, index: np.ndarray) -> np.ndarray:
    shape = np.ones(len(eqn.params["shape"]), int)
    shape[list(eqn.params["broadcast_dimensions"])] = index.shape
    return index.reshape(shape)


def _reshape(eqn: Any, index: np.ndarray) -> np.ndarray | None:
    """Entries are followed in the axes that a marked piece enters; the others keep size 1."""
    old, new = eqn.invars[0].aval.shape, eqn.params["new_sizes"]
    cut = factors(old, new)
    if cut is None or eqn.params.get("dimensions"):
        return None
    marked = {p for own, size in zip(cut.old, index.shape) if size > 1 for p in own}
    shown = {p for own in cut.new if marked & {*own} for p in own}
    part = index.reshape([size if i in marked else 1 for i, size in enumerate(cut.sizes)])
    part = np.broadcast_to(part, [size if i in shown else 1 for i, size in enumerate(cut.sizes)])
    return part.reshape([math.prod(cut.sizes[p] for p in own if p in shown) for own in cut.new])


def _slice(eqn: Any, index: np.ndarray) -> np.ndarray:
    p = eqn.params
    strides = p["strides"] or (1,) * index.ndim
    cuts = [slice(*cut) for cut in zip(p["start_indices"], p["limit_indices"], strides)]
    return index[tuple(c if n > 1 else slice(None) for c, n in zip(cuts, index.shape))]


def _reduce(eqn: Any, index: np.ndarray) -> np.ndarray | None:
    over = tuple(map(int, eqn.params["axes"]))
    return index.squeeze(over) if all(index.shape[a] == 1 for a in over) else None


def _window(eqn: Any, index: np.ndarray) -> np.ndarray | None:
    p = eqn.params
    sizes = zip(p["window_dimensions"], p["window_strides"], p["base_dilation"], p["window_dilation"], p["padding"])
    return index if all(n == 1 or s == (1, 1, 1, 1, (0, 0)) for n, s in zip(index.shape, sizes)) else None


def _pad(book: Book, eqn: Any, values: list[Any]) -> Any:
    value, fill = values
    sides = zip(value.index.shape, eqn.params["padding_config"]) if isinstance(value, Scaled) else [(2, ())]
    whole = all(n == 1 or tuple(side) == (0, 0, 0) for n, side in sides)
    return Scaled(value.root, value.index) if whole and _is_zero(fill) else None


CONTRACTIONS: dict[str, Rule] = {"dot_general": dot, "conv_general_dilated": conv}
KEPT = frozenset({"convert_element_type", "copy", "copy_p", "reduce_precision", "sharding_constraint"})
RULES: dict[str, Rule] = {
    "abs": _unary,
    "add": _add,
    "add_any": _add,
    "broadcast_in_dim": _moved(_broadcast),
    "div": _div,
    "mul": _mul,
    "neg": _unary,
    "pad": _pad,
    "reshape": _moved(_reshape),
    "select_n": _select,
    "slice": _moved(_slice),
    "squeeze": _moved(lambda eqn, index: index.squeeze(tuple(eqn.params["dimensions"]))),
    "sub": _add,
    "transpose": _moved(lambda eqn, index: index.transpose(eqn.params["permutation"])),
    **dict.fromkeys(("max", "min"), _largest),
    **dict.fromkeys(("eq", "ge", "gt", "le", "lt", "ne"), _compared),
    **dict.fromkeys(("reduce_max", "reduce_min", "reduce_sum"), _moved(_reduce)),
    **dict.fromkeys(("reduce_window_max", "reduce_window_min", "reduce_window_sum"), _moved(_window)),
}
