"""Where a channel is exactly zero, so that a sum over channels can leave it out.

A channel can be cut when nothing that is left depends on it. Most operations treat channels side by side; those that
sum over them (`dot_general`, `conv_general_dilated`, `reduce_sum`) do not notice a channel that is zero in one of the
operands. Zeros are followed through the program for each index of each axis: `axes[a][i]` says that all entries at
index `i` of axis `a` are zero, whatever the input, as long as everything else is finite.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from spartax import checks
from spartax.program import walk
from spartax.program.coupling_rules import ELEMENTWISE
from spartax.program.factors import factors
from spartax.program.plan import Domain, Plan, Step, control, replay
from spartax.program.units import Axes, Units


class Zero(NamedTuple):
    """What is known of a value.

    Attributes:
      axes: for each axis, which indices are zero.
      fill: the one number that it holds everywhere, or None.
    """

    axes: tuple[np.ndarray, ...]
    fill: float | None = None


_KEEP = """
    abs asin asinh atan atanh cbrt ceil convert_element_type copy div erf erf_inv expm1 floor imag integer_pow log1p neg
    real reduce_precision rem round sharding_constraint sign sin sinh sqrt square stop_gradient tan tanh
"""
KEEP = frozenset(_KEEP.split())  # f(0) = 0, or 0 / y = 0
SUMS = ("add", "add_any", "or", "sub", "xor")
WHY = "summed with other channels where it does not vanish (statistics of a normalization, a softmax)"


def freeze_unproven(plan: Plan, units: Units, inputs: Sequence[Axes], weights: int) -> None:
    """Freeze what is summed without being zero even if all weights of the channel are.

    Args:
      plan: the program.
      units: of its axes.
      inputs: units of its arguments.
      weights: how many of the arguments are weights; the others are never zero.
    """
    values = [Zero(tuple(np.full(len(a), i < weights and len(a) > 1) for a in v)) for i, v in enumerate(inputs)]
    read(plan, values, lambda summed: units.freeze(summed, WHY))


def read(plan: Plan, values: Sequence[Zero], on_sum: Callable[[np.ndarray], None]) -> list[Zero]:
    """Follow the zeros through a program; `on_sum` is told the units that are summed without being zero."""

    def on_step(step: Step, inputs: list[Any]) -> list[Zero]:
        inputs = [v if isinstance(v, Zero) else _constant(v) for v in inputs]
        if step.eqn.primitive in walk.DESCEND:
            inner = lambda jaxpr, v: read(step.bodies[id(jaxpr)], v, on_sum)  # noqa: E731
            return control(step.eqn, inputs, Domain(inner, _both, _layer, _stack))
        for summed, zero in _sums(step, inputs):
            on_sum(summed[~zero])
        rule = _elementwise if step.eqn.primitive.name in ELEMENTWISE else RULES.get(step.eqn.primitive.name, _unknown)
        return rule(step, inputs)

    return [v if isinstance(v, Zero) else _constant(v) for v in replay(plan, values, on_step)]


def of_array(array: np.ndarray) -> Zero:
    """The zeros of an array that is known."""
    others = [tuple(b for b in range(array.ndim) if b != a) for a in range(array.ndim)]
    return Zero(tuple(np.all(array == 0, axis=o) for o in others))


def nothing(axes: Axes) -> Zero:
    """Nothing is known."""
    return Zero(tuple(np.zeros(len(a), bool) for a in axes))


def _constant(value: Any) -> Zero:
    """What is known of a literal or a constant of the program."""
    if np.ndim(value):
        return Zero(tuple(np.zeros(n, bool) for n in np.shape(value)))
    real = any(jnp.issubdtype(jnp.result_type(value), kind) for kind in (jnp.floating, jnp.integer))
    return Zero((), float(value) if real and checks.is_concrete(value) else None)


def _both(a: Zero, b: Zero) -> Zero:
    axes = tuple(x & y for x, y in zip(a.axes, b.axes))
    same = a.fill == b.fill or a.fill is None
    return a if same and all(map(np.array_equal, axes, a.axes)) else Zero(axes, a.fill if a.fill == b.fill else None)


def _layer(a: Zero) -> Zero:
    return Zero(a.axes[1:], a.fill)


def _stack(a: Zero, length: int) -> Zero:
    return Zero((np.zeros(length, bool), *a.axes), a.fill)


def _sums(step: Step, inputs: list[Zero]) -> list[tuple[np.ndarray, np.ndarray]]:
    """(units, which of them are zero) of every axis that this operation sums over."""
    name, params = step.eqn.primitive.name, step.eqn.params
    if name == "reduce_sum":
        return [(step.inputs[0][a], inputs[0].axes[a]) for a in params["axes"]]
    if name == "dot_general":
        (lc, rc), _ = params["dimension_numbers"]
        return [(step.inputs[0][a], inputs[0].axes[a] | inputs[1].axes[b]) for a, b in zip(lc, rc)]
    if name == "conv_general_dilated" and params["feature_group_count"] == params["batch_group_count"] == 1:
        a, b = params["dimension_numbers"].lhs_spec[1], params["dimension_numbers"].rhs_spec[1]
        return [(step.inputs[0][a], inputs[0].axes[a] | inputs[1].axes[b])]
    return []


def _unknown(step: Step, inputs: list[Zero]) -> list[Zero]:
    return [nothing(axes) for axes in step.outputs]


def _elementwise(step: Step, inputs: list[Zero]) -> list[Zero]:
    name, out = step.eqn.primitive.name, step.outputs[0]
    if name in ("mul", "and"):
        return [_joined(np.logical_or, inputs, out, lambda v: v == 0)]
    if name in SUMS:
        return [_joined(np.logical_and, inputs, out, lambda v: v == 0)]
    if name in ("max", "min"):
        keeps = _joined(np.logical_and, inputs, out, lambda v: v <= 0 if name == "max" else v >= 0)
        one = _joined(np.logical_or, inputs, out, lambda v: v == 0)  # max(-1, -2) is not zero
        return [Zero(tuple(a & b for a, b in zip(keeps.axes, one.axes)))]
    if name == "select_n":
        return [_joined(np.logical_and, inputs[1:], out, lambda v: v == 0)]
    if name == "clamp":
        low, x, high = inputs
        inside = low.fill is not None and high.fill is not None and low.fill <= 0 <= high.fill
        return [Zero(x.axes)] if inside else _unknown(step, inputs)
    if name in KEEP and step.eqn.params.get("y", 1) > 0:
        fill = inputs[0].fill if name == "convert_element_type" else None
        fill = fill if fill is None else float(np.array(fill).astype(step.eqn.params["new_dtype"]))
        return [Zero(_joined(np.logical_and, inputs[:1], out, lambda v: v == 0).axes, fill)]
    return _unknown(step, inputs)


def _joined(ufunc: Any, inputs: list[Zero], out: Axes, good: Callable[[float], bool]) -> Zero:
    """Index by index over the operands; a known number counts as zero if `good` says that it keeps zeros zero."""

    def of(value: Zero, axis: int, size: int) -> np.ndarray:
        if value.fill is not None:
            return np.full(size, good(value.fill))
        own = value.axes[axis] if value.axes else np.zeros(0, bool)
        return own if len(own) == size else np.zeros(size, bool)

    return Zero(tuple(ufunc.reduce([of(v, i, len(a)) for v in inputs]) for i, a in enumerate(out)))


def _broadcast(step: Step, inputs: list[Zero]) -> list[Zero]:
    source, fill = inputs[0], inputs[0].fill
    at = {int(d): source.axes[i] for i, d in enumerate(step.eqn.params["broadcast_dimensions"])}
    kept = [at[i] if len(at.get(i, ())) == len(a) else np.zeros(len(a), bool) for i, a in enumerate(step.outputs[0])]
    return [Zero(tuple(np.full(len(z), fill == 0) if fill is not None else z for z in kept), fill)]


def _dot(step: Step, inputs: list[Zero]) -> list[Zero]:
    (lc, rc), (lb, rb) = step.eqn.params["dimension_numbers"]
    left, right = (v.axes for v in inputs)
    batch = [left[a] | right[b] for a, b in zip(lb, rb)]
    free = [z for axes, used in ((left, (*lc, *lb)), (right, (*rc, *rb))) for i, z in enumerate(axes) if i not in used]
    return [Zero((*batch, *free))]


def _conv(step: Step, inputs: list[Zero]) -> list[Zero]:
    numbers, groups = step.eqn.params["dimension_numbers"], step.eqn.params["feature_group_count"]
    x, kernel = inputs[0].axes[numbers.lhs_spec[1]], inputs[1].axes[numbers.rhs_spec[0]]
    unfed = np.repeat(np.all(x.reshape(groups, -1), axis=1), len(kernel) // groups)
    out = list(nothing(step.outputs[0]).axes)
    if step.eqn.params["batch_group_count"] == 1:
        out[numbers.out_spec[1]] = kernel | unfed
    return [Zero(tuple(out))]


def _concatenate(step: Step, inputs: list[Zero]) -> list[Zero]:
    along = step.eqn.params["dimension"]
    join = lambda i: np.concatenate if i == along else np.logical_and.reduce  # noqa: E731
    return [Zero(tuple(join(i)([v.axes[i] for v in inputs]) for i in range(len(step.outputs[0]))))]


def _stacked(step: Step, inputs: list[Zero]) -> list[Zero]:
    along, size = step.eqn.params["axis"], len(inputs)
    shared = [np.logical_and.reduce(zeros) for zeros in zip(*(v.axes for v in inputs))]
    return [Zero((*shared[:along], np.zeros(size, bool), *shared[along:]))]


def _pad(step: Step, inputs: list[Zero]) -> list[Zero]:
    config, zero = step.eqn.params["padding_config"], inputs[1].fill == 0
    added = [bool(low or high or inside) for low, high, inside in config]
    out = []
    for i, (own, (low, high, inside), axis) in enumerate(zip(inputs[0].axes, config, step.outputs[0])):
        kept = own & (zero or not any(added[:i] + added[i + 1 :]))
        plain = min(low, high) >= 0 and not inside
        out.append(np.pad(kept, (low, high), constant_values=zero) if plain else np.zeros(len(axis), bool))
    return [Zero(tuple(out))]


def _reshape(step: Step, inputs: list[Zero]) -> list[Zero]:
    """A piece is zero where all of its axis are; a joined axis where one of its pieces is."""
    cut = factors([len(a) for a in step.inputs[0]], [len(a) for a in step.outputs[0]])
    if cut is None or step.eqn.params.get("dimensions"):
        return _unknown(step, inputs)
    known = [np.zeros(n, bool) for n in cut.sizes]
    for own, zero in zip(cut.old, inputs[0].axes):
        grid = zero.reshape([cut.sizes[i] for i in own])
        for axis, i in enumerate(own):
            known[i] = np.all(grid, axis=tuple(a for a in range(grid.ndim) if a != axis))
    out = []
    for own, axis in zip(cut.new, step.outputs[0]):
        grids = np.meshgrid(*(known[i] for i in own), indexing="ij")
        out.append(np.logical_or.reduce(grids).ravel() if own else np.zeros(len(axis), bool))
    return [Zero(tuple(out), inputs[0].fill)]


def _gather(step: Step, inputs: list[Zero]) -> list[Zero]:
    """Rows outside the table may be filled with another number than zero (NaN, the default, is everywhere then)."""
    return _unknown(step, inputs) if step.eqn.params["fill_value"] else _moved(step, inputs)


def _moved(step: Step, inputs: list[Zero]) -> list[Zero]:
    """Operations that take, leave out or reorder indices of one array: a unit stays as zero as it was."""
    known: dict[int, bool] = {}
    for unit, zero in zip(np.concatenate(step.inputs[0]).tolist(), np.concatenate(inputs[0].axes).tolist()):
        known[unit] = zero and known.get(unit, True)
    fill = inputs[0].fill if step.eqn.primitive.name in ("squeeze", "slice", "transpose") else None
    found = [tuple(np.array([known.get(u, False) for u in a.tolist()], bool) for a in axes) for axes in step.outputs]
    return [Zero(axes, fill) for axes in found]


_MOVES = """
    cummax cummin cumprod cumsum dynamic_slice reduce_max reduce_min reduce_prod reduce_sum reduce_window_max
    reduce_window_min reduce_window_sum rev slice split squeeze tile transpose unstack
"""

RULES: dict[str, Callable[[Step, list[Zero]], list[Zero]]] = {
    "broadcast_in_dim": _broadcast,
    "concatenate": _concatenate,
    "conv_general_dilated": _conv,
    "device_put": lambda step, inputs: inputs,
    "dot_general": _dot,
    "gather": _gather,
    "optimization_barrier": lambda step, inputs: inputs,
    "pad": _pad,
    "reshape": _reshape,
    "stack": _stacked,
    **dict.fromkeys(_MOVES.split(), _moved),
}
