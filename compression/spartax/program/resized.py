"""`resized`: the program of a network, run on weights from which channels were removed."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import primitives as P

from spartax import tree
from spartax.program import walk
from spartax.program.coupling import Coupled, couple
from spartax.program.coupling_rules import plan_of
from spartax.program.plan import Plan, Step, replay
from spartax.program.units import Axes, Units
from spartax.records import Params, Path

Cuts = Mapping[Path, Mapping[int, np.ndarray]]  # path -> axis -> indices that are removed


def resized(apply_fn: Callable[..., Any], params: Params, cuts: Cuts) -> Callable[..., Any]:
    """`apply_fn` for weights without the indices in `cuts`: the same program with every static size made to fit.

    Fixed feature counts inside a model do not matter, since it is the traced program that runs, not the model. It is
    traced on the original shapes (for each new shape of the other arguments), and the sizes that an operation carries
    (`reshape`, `broadcast_in_dim`, `slice`, `pad` ...) are cut as the units of its axes say. Custom derivatives are
    kept.

    Args:
      apply_fn: pure function of `params` and more.
      params: the original weights, or only their shapes (`jax.ShapeDtypeStruct`).
      cuts: what is removed: whole channels, as `groups` finds them.

    Returns:
      A pure function of the smaller params and the other arguments (not jitted).

    Raises:
      ValueError: at use, cuts that are not whole channels, or that reach what cannot be removed.
    """
    shapes = tree.replace(
        params, {path: jax.ShapeDtypeStruct(w.shape, w.dtype) for path, w in tree.weights(params).items()}
    )

    def run(params: Params, *args: Any) -> Any:
        coupled = couple(apply_fn, shapes, args)
        kept = _Kept(coupled.units, removed(coupled, cuts))
        _check(coupled, cuts, kept)
        outputs = replay(coupled.plan, jax.tree.leaves((params, *args)), lambda s, v: _on_step(s, v, kept))
        return coupled.out_tree.unflatten(outputs)

    return run


def removed(coupled: Coupled, cuts: Cuts) -> np.ndarray:
    """The units that the cuts name."""
    named = [coupled.axes[path][axis][gone] for path, axes in cuts.items() for axis, gone in axes.items()]
    return coupled.units.roots(np.concatenate([np.zeros(0, np.int64), *named]))


class _Kept:
    """What is left of an axis."""

    def __init__(self, units: Units, gone: np.ndarray) -> None:
        self.units, self.gone = units, np.unique(gone)

    def __call__(self, axis: np.ndarray) -> np.ndarray:
        return ~np.isin(self.units.roots(axis), self.units.roots(self.gone))

    def size(self, axis: np.ndarray) -> int:
        return int(np.sum(self(axis)))

    def shape(self, axes: Axes) -> tuple[int, ...]:
        return tuple(self.size(axis) for axis in axes)


def _check(coupled: Coupled, cuts: Cuts, kept: _Kept) -> None:
    if np.any(coupled.units.is_frozen(kept.gone)):
        why = coupled.units.why_frozen()
        reasons = sorted({why[int(r)] for r in coupled.units.roots(kept.gone) if int(r) in why})
        raise ValueError(f"cuts reach channels that cannot be removed: {'; '.join(reasons)}.")
    for path, axes in coupled.axes.items():
        for axis, units in enumerate(axes):
            gone, named = np.flatnonzero(~kept(units)), cuts.get(path, {}).get(axis, ())
            if not np.array_equal(gone, np.sort(named)):
                raise ValueError(f"cuts must be whole channels; {path} would lose {gone.tolist()} of axis {axis}.")


def _on_step(step: Step, values: list[Any], kept: _Kept) -> list[Any]:
    eqn = step.eqn
    if all(np.all(kept(axis)) for axes in (*step.inputs, *step.outputs) for axis in axes):
        return walk.bind(eqn, values)

    def run(jaxpr: Any, inner: Any, times: int = 1) -> list[Any]:
        return replay(step.bodies[id(jaxpr)], inner, lambda s, v: _on_step(s, v, kept))

    if eqn.primitive is P.custom_jvp_call_p:
        return _custom_jvp(step, values, kept, run)
    if eqn.primitive in walk.DESCEND:
        return walk.DESCEND[eqn.primitive](eqn, values, run)
    rule = RULES.get(eqn.primitive.name)
    return walk.bind(eqn.replace(params={**eqn.params, **rule(step, kept)}) if rule else eqn, values)


def _custom_jvp(step: Step, values: list[Any], kept: _Kept, run: Callable[..., list[Any]]) -> list[Any]:
    """Its derivative is a program too, resized like any other."""

    @jax.custom_jvp
    def call(*values: Any) -> list[Any]:
        return run(step.eqn.params["call_jaxpr"], values)

    @call.defjvp
    def _(primals: tuple, tangents: tuple) -> tuple:
        plan = _derivative(step, kept.units)
        outputs = replay(plan, (*primals, *tangents), lambda s, v: _on_step(s, v, kept))
        return outputs[: len(outputs) // 2], outputs[len(outputs) // 2 :]

    return call(*values)


def _derivative(step: Step, units: Units) -> Plan:
    """The plan of `(x, t) -> (f(x), f'(x) t)`."""
    shapes = [v.aval for v in step.eqn.invars]
    if not all(jnp.issubdtype(s.dtype, jnp.floating) for s in shapes):
        raise ValueError("a custom derivative in an argument that is not floating cannot be resized.")

    def both(*values: Any) -> Any:
        half = len(values) // 2
        return jax.jvp(lambda *v: walk.bind(step.eqn, v), values[:half], values[half:])

    jaxpr = jax.make_jaxpr(both)(*(jax.ShapeDtypeStruct(s.shape, s.dtype) for s in (*shapes, *shapes)))
    plan = plan_of(units, jaxpr, [*step.inputs, *step.inputs])
    units.settle()
    return plan


def _shape(name: str) -> Callable[[Step, _Kept], dict[str, Any]]:
    return lambda step, kept: {name: kept.shape(step.outputs[0])}


def _slice(step: Step, kept: _Kept) -> dict[str, Any]:
    bounds = zip(step.inputs[0], step.eqn.params["start_indices"], step.eqn.params["limit_indices"])
    new = [
        (kept.size(axis[:low]), kept.size(axis[:high])) if not np.all(kept(axis)) else (low, high)
        for axis, low, high in bounds
    ]
    return {"start_indices": tuple(low for low, _ in new), "limit_indices": tuple(high for _, high in new)}


def _pad(step: Step, kept: _Kept) -> dict[str, Any]:
    def config(axis: np.ndarray, low: int, high: int, inside: int) -> tuple[int, int, int]:
        if np.all(kept(axis)):
            return low, high, inside
        return kept.size(axis[:low]), kept.size(axis[len(axis) - high :]), inside

    old = step.eqn.params["padding_config"]
    return {"padding_config": tuple(config(axis, *row) for axis, row in zip(step.outputs[0], old))}


def _split(step: Step, kept: _Kept) -> dict[str, Any]:
    along = step.eqn.params["axis"]
    return {"sizes": tuple(kept.size(axes[along]) for axes in step.outputs)}


def _taken(step: Step, kept: _Kept) -> dict[str, Any]:
    whole = zip(step.inputs[0], step.eqn.params["slice_sizes"])
    return {"slice_sizes": tuple(kept.size(axis) if len(axis) == size else size for axis, size in whole)}


def _conv(step: Step, kept: _Kept) -> dict[str, Any]:
    """With groups, an equal part of each group's channels never goes: whole groups do."""
    groups, feature = step.eqn.params["feature_group_count"], step.eqn.params["dimension_numbers"].lhs_spec[1]
    axis = step.inputs[0][feature]
    return {"feature_group_count": groups * kept.size(axis) // len(axis) if groups > 1 else 1}


RULES: dict[str, Callable[[Step, _Kept], dict[str, Any]]] = {
    "broadcast_in_dim": _shape("shape"),
    "conv_general_dilated": _conv,
    "dynamic_slice": _taken,
    "gather": _taken,
    "iota": _shape("shape"),
    "pad": _pad,
    "reshape": _shape("new_sizes"),
    "slice": _slice,
    "split": _split,
}
