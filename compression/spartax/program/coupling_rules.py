"""Which units meet in each operation. An operation without a rule freezes everything that enters it, which is always
right: what is frozen is never cut."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from spartax.program import walk
from spartax.program.coupling_contractions import conv, dot
from spartax.program.factors import reshape
from spartax.program.plan import Domain, Plan, Step, control
from spartax.program.units import Axes, Units

_ELEMENTWISE = """
    abs acos acosh add add_any and asin asinh atan atan2 atanh cbrt ceil clamp convert_element_type copy cos
    cosh digamma div eq erf erf_inv erfc exp exp2 expm1 floor ge gt imag integer_pow is_finite le lgamma log
    log1p log2 logistic lt max min mul ne neg nextafter not one_minus_square or pow real reduce_precision rem round
    rsqrt select_n sharding_constraint sign sin sinh sqrt square stop_gradient sub tan tanh xor
"""
_REDUCTIONS = "argmax argmin reduce_and reduce_max reduce_min reduce_or reduce_prod reduce_sum reduce_xor"
_CUMULATIVE = "cumlogsumexp cummax cummin cumprod cumsum"
_WINDOWS = "reduce_window_max reduce_window_min reduce_window_sum"
ELEMENTWISE = frozenset(_ELEMENTWISE.split())  # names, since not every version of JAX has all of them


def plan_of(units: Units, jaxpr: Any, values: Sequence[Axes]) -> Plan:
    """Walk a program on units alone."""
    steps: list[Step] = []

    def visit(eqn: Any, inputs: list[Any], trips: int) -> list[Axes]:
        inputs = [_constant(units, v) for v in inputs]
        bodies: dict[int, Plan] = {}
        outputs = _descend(units, eqn, inputs, bodies) if eqn.primitive in walk.DESCEND else _rule(units, eqn, inputs)
        steps.append(Step(eqn, inputs, outputs, bodies))
        return outputs

    outputs = walk.walk(jaxpr, values, visit, everywhere=True)
    return Plan(jaxpr, steps, [_constant(units, v) for v in outputs])


def _constant(units: Units, value: Any) -> Axes:
    """The units of an operand that may be a literal or a constant of the program."""
    if isinstance(value, tuple):
        return value
    return tuple(units.fixed(n, "a constant of the program") for n in np.shape(value))


def _descend(units: Units, eqn: Any, inputs: list[Axes], bodies: dict[int, Plan]) -> list[Axes]:
    def run(jaxpr: Any, inner: list[Axes]) -> list[Axes]:
        bodies[id(jaxpr)] = plan_of(units, jaxpr, inner)
        return bodies[id(jaxpr)].outputs

    def join(a: Axes, b: Axes) -> Axes:
        for one, other in zip(a, b):
            units.tie(one, other)
        return a

    def layer(a: Axes) -> Axes:
        units.freeze(a[0], "layers of a loop")
        return a[1:]

    return control(eqn, inputs, Domain(run, join, layer, lambda a, n: (units.fixed(n, "layers of a loop"), *a)))


def _rule(units: Units, eqn: Any, inputs: list[Axes]) -> list[Axes]:
    name = eqn.primitive.name
    if name in ELEMENTWISE:
        return [_elementwise(units, inputs)] * len(eqn.outvars)
    rule = RULES.get(name)
    outputs = rule(units, eqn, inputs) if rule else None
    return _unknown(units, eqn, inputs) if outputs is None else outputs


def _unknown(units: Units, eqn: Any, inputs: list[Axes]) -> list[Axes]:
    why = f"read by {eqn.primitive.name}"
    for axis in itertools.chain(*inputs):
        units.freeze(axis, why)
    return [tuple(units.fixed(n, why) for n in v.aval.shape) for v in eqn.outvars]


def _elementwise(units: Units, inputs: list[Axes]) -> Axes:
    """Scalars and axes of one entry meet nobody; all others meet index by index."""
    rank = max(map(len, inputs), default=0)
    out = []
    for axis in range(rank):
        own = [a[axis] for a in inputs if len(a) == rank]
        longest = max(own, key=len)
        for other in own:
            if other is not longest and len(other) == len(longest):
                units.tie(longest, other)
        out.append(longest)
    return tuple(out)


def _only(units: Units, axes: Axes, whole: Sequence[bool], why: str) -> Axes:
    """The axes, of which those that are not taken whole cannot be cut."""
    for axis, free in zip(axes, whole):
        if not free:
            units.freeze(axis, why)
    return axes


def _broadcast(units: Units, eqn: Any, inputs: list[Axes]) -> list[Axes] | None:
    if len(inputs) != 1:
        return None
    source = dict(zip(map(int, eqn.params["broadcast_dimensions"]), inputs[0]))
    shape = eqn.params["shape"]
    return [tuple(source[i] if len(source.get(i, ())) == n else units.fresh(n) for i, n in enumerate(shape))]


def _iota(units: Units, eqn: Any, inputs: list[Axes]) -> list[Axes]:
    counted = eqn.params["dimension"]
    shape = eqn.outvars[0].aval.shape
    return [tuple(units.fixed(n, "counted by iota") if i == counted else units.fresh(n) for i, n in enumerate(shape))]


def _transpose(units: Units, eqn: Any, inputs: list[Axes]) -> list[Axes]:
    return [tuple(inputs[0][a] for a in eqn.params["permutation"])]


def _squeeze(units: Units, eqn: Any, inputs: list[Axes]) -> list[Axes]:
    return [tuple(a for i, a in enumerate(inputs[0]) if i not in eqn.params["dimensions"])]


def _reduce(units: Units, eqn: Any, inputs: list[Axes]) -> list[Axes]:
    """A sum over channels may leave out zeros (`zeros` decides); any other reduction sees them."""
    name, over = eqn.primitive.name, {int(a) for a in eqn.params["axes"]}
    if name != "reduce_sum":
        _only(units, inputs[0], [i not in over for i in range(len(inputs[0]))], f"reduced by {name}")
    return [tuple(a for i, a in enumerate(inputs[0]) if i not in over)] * len(eqn.outvars)


def _concatenate(units: Units, eqn: Any, inputs: list[Axes]) -> list[Axes]:
    along = eqn.params["dimension"]
    shared = _elementwise(units, [(*a[:along], *a[along + 1 :]) for a in inputs])
    return [(*shared[:along], np.concatenate([a[along] for a in inputs]), *shared[along:])]


def _stack(units: Units, eqn: Any, inputs: list[Axes]) -> list[Axes]:
    along, shared = eqn.params["axis"], _elementwise(units, inputs)
    return [(*shared[:along], units.fixed(len(inputs), "stacked"), *shared[along:])]


def _unstack(units: Units, eqn: Any, inputs: list[Axes]) -> list[Axes]:
    along = eqn.params["axis"]
    units.freeze(inputs[0][along], "unstacked")
    return [(*inputs[0][:along], *inputs[0][along + 1 :])] * len(eqn.outvars)


def _tile(units: Units, eqn: Any, inputs: list[Axes]) -> list[Axes]:
    return [tuple(np.tile(axis, times) for axis, times in zip(inputs[0], eqn.params["reps"]))]


def _pad(units: Units, eqn: Any, inputs: list[Axes]) -> list[Axes]:
    out = []
    for axis, (low, high, inside) in zip(inputs[0], eqn.params["padding_config"]):
        if inside or low < 0 or high < 0:
            units.freeze(axis, "padded in between, or cropped by pad")
            axis = units.fixed(len(axis) + low + high + inside * max(len(axis) - 1, 0), "padded in between")
            out.append(axis)
        else:
            out.append(np.concatenate([units.fresh(low), axis, units.fresh(high)]) if low or high else axis)
    return [tuple(out)]


def _slice(units: Units, eqn: Any, inputs: list[Axes]) -> list[Axes]:
    strides = eqn.params["strides"] or (1,) * len(inputs[0])
    _only(units, inputs[0], [s == 1 for s in strides], "sliced with a stride")
    cuts = zip(inputs[0], eqn.params["start_indices"], eqn.params["limit_indices"], strides)
    return [tuple(axis[low:high:step] for axis, low, high, step in cuts)]


def _split(units: Units, eqn: Any, inputs: list[Axes]) -> list[Axes]:
    along, ends = eqn.params["axis"], np.cumsum(eqn.params["sizes"])
    pieces = np.split(inputs[0][along], ends[:-1])
    return [(*inputs[0][:along], piece, *inputs[0][along + 1 :]) for piece in pieces]


def _dynamic_slice(units: Units, eqn: Any, inputs: list[Axes]) -> list[Axes]:
    return [_taken(units, inputs[0], eqn.params["slice_sizes"])]


def _taken(units: Units, axes: Axes, sizes: Sequence[int]) -> Axes:
    """Axes of which a piece of this size is taken at a place that only the run knows."""
    whole = [len(axis) == size for axis, size in zip(axes, sizes)]
    _only(units, axes, whole, "sliced at a computed place")
    return tuple(a if w else units.fixed(n, "sliced at a computed place") for a, w, n in zip(axes, whole, sizes))


def _dynamic_update(units: Units, eqn: Any, inputs: list[Axes]) -> list[Axes]:
    whole = [len(own) == len(new) for own, new in zip(*inputs[:2])]
    for axes in inputs[:2]:
        _only(units, axes, whole, "written at a computed place")
    return [_elementwise(units, inputs[:2])]


def _gather(units: Units, eqn: Any, inputs: list[Axes]) -> list[Axes] | None:
    """Rows of a table: the looked-up axes stay; those that are taken whole pass through."""
    numbers = eqn.params["dimension_numbers"]
    if numbers.operand_batching_dims:
        return None
    table, ids = inputs
    _only(units, table, [i not in numbers.start_index_map for i in range(len(table))], "looked up by gather")
    rows = _taken(units, table, eqn.params["slice_sizes"])
    passed = iter([a for i, a in enumerate(rows) if i not in numbers.collapsed_slice_dims])
    batch = iter(ids[:-1])
    units.freeze(ids[-1], "looked up by gather")
    rank = len(eqn.outvars[0].aval.shape)
    return [tuple(next(passed) if i in numbers.offset_dims else next(batch) for i in range(rank))]


def _window(units: Units, eqn: Any, inputs: list[Axes]) -> list[Axes]:
    p, why = eqn.params, "pooled"
    sizes = (p["window_dimensions"], p["window_strides"], p["base_dilation"], p["window_dilation"])
    whole = [set(ones) == {1} and tuple(pad) == (0, 0) for *ones, pad in zip(*sizes, p["padding"])]
    _only(units, inputs[0], whole, why)
    shape = eqn.outvars[0].aval.shape
    return [tuple(a if w else units.fixed(n, why) for a, w, n in zip(inputs[0], whole, shape))]


def _along(name: str) -> Callable[[Units, Any, list[Axes]], list[Axes]]:
    """Operations in which the order of one axis (or of several) matters and all others pass."""

    def rule(units: Units, eqn: Any, inputs: list[Axes]) -> list[Axes]:
        ordered = eqn.params[name] if isinstance(eqn.params[name], tuple) else (eqn.params[name],)
        out = _elementwise(units, inputs)
        return [_only(units, out, [i not in ordered for i in range(len(out))], eqn.primitive.name)] * len(eqn.outvars)

    return rule


RULES: dict[str, Callable[[Units, Any, list[Axes]], list[Axes] | None]] = {
    "broadcast_in_dim": _broadcast,
    "concatenate": _concatenate,
    "conv_general_dilated": conv,
    "device_put": lambda units, eqn, inputs: inputs,
    "dot_general": dot,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update,
    "gather": _gather,
    "iota": _iota,
    "optimization_barrier": lambda units, eqn, inputs: inputs,
    "pad": _pad,
    "reshape": reshape,
    "rev": _along("dimensions"),
    "slice": _slice,
    "sort": _along("dimension"),
    "split": _split,
    "squeeze": _squeeze,
    "stack": _stack,
    "tile": _tile,
    "transpose": _transpose,
    "unstack": _unstack,
    **dict.fromkeys(_REDUCTIONS.split(), _reduce),
    **dict.fromkeys(_CUMULATIVE.split(), _along("axis")),
    **dict.fromkeys(_WINDOWS.split(), _window),
}
