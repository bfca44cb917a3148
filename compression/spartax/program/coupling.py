"""`couple`: read from a program which indices of which weights go together."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from spartax import tree
from spartax.program import zeros
from spartax.program.coupling_rules import plan_of
from spartax.program.factors import SINGLE
from spartax.program.inspect import trace
from spartax.program.plan import Plan
from spartax.program.units import Axes, Units
from spartax.records import Params, Path


class Coupled(NamedTuple):
    """A program with the units of all its axes.

    Attributes:
      plan: the program.
      units: which of them go together, and which stay.
      axes: path -> units of the weight.
      inputs: units of every argument of the program, in order.
      out_tree: structure of the result.
    """

    plan: Plan
    units: Units
    axes: dict[Path, Axes]
    inputs: list[Axes]
    out_tree: Any


def couple(apply_fn: Callable[..., Any], params: Params, args: tuple) -> Coupled:
    """Trace `apply_fn(params, *args)` and find the units of its axes.

    Raises:
      ValueError: the function does not accept these params or inputs.
    """
    jaxpr, out_tree = trace(apply_fn, params, args)
    units = Units()
    axes = {path: tuple(_of_weight(units, n) for n in w.shape) for path, w in tree.weights(params).items()}
    inputs = [tuple(units.fixed(n, "input of the model") for n in x.shape) for x in jax.tree.leaves(args)]
    values = [*axes.values(), *inputs]
    plan = plan_of(units, jaxpr, values)
    for output in plan.outputs:
        for axis in output:
            units.freeze(axis, "output of the model")
    zeros.freeze_unproven(plan, units, values, len(axes))
    units.settle()
    return Coupled(plan, units, axes, values, out_tree)


def _of_weight(units: Units, size: int) -> Any:
    return units.fresh(size) if size > 1 else units.fixed(size, SINGLE)
