"""A program whose every axis is known by its units, and how an abstract reading walks it.

What is learnt is kept per equation *in its context*, since one jitted function may be called at two places whose
channels have nothing to do with each other.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jax.extend.core import primitives as P

from spartax.program import walk
from spartax.program.units import Axes


class Step(NamedTuple):
    """One equation in its context: the units of its operands and results, and the plans of the programs inside it."""

    eqn: Any
    inputs: list[Axes]
    outputs: list[Axes]
    bodies: dict[int, "Plan"]  # id(inner program) -> its plan


class Plan(NamedTuple):
    """A program whose every axis has units."""

    jaxpr: Any
    steps: list[Step]
    outputs: list[Axes]


def replay(plan: Plan, values: Sequence[Any], on_step: Callable[[Step, list[Any]], list[Any]]) -> list[Any]:
    """Walk the program of a plan again; `on_step(step, values)` gives the results of every equation."""
    steps = iter(plan.steps)
    return walk.walk(plan.jaxpr, values, lambda eqn, inputs, trips: on_step(next(steps), inputs), everywhere=True)


class Domain(NamedTuple):
    """What an abstract reading needs to pass through control flow.

    Attributes:
      run: `(inner program, values) -> results`.
      join: the value that holds for both; the first one itself if that adds nothing.
      layer: the value of one step, of a value stacked along its first axis.
      stack: `(value of one step, length) -> value stacked along a new first axis`.
    """

    run: Callable[[Any, list[Any]], list[Any]]
    join: Callable[[Any, Any], Any]
    layer: Callable[[Any], Any]
    stack: Callable[[Any, int], Any]


def control(eqn: Any, values: list[Any], domain: Domain) -> list[Any]:
    """The results of an equation with programs inside; loops run until nothing new is learnt."""
    primitive, params = eqn.primitive, eqn.params
    if primitive is P.scan_p:
        return _scan(eqn, values, domain)
    if primitive is P.while_p:
        a, b = params["cond_nconsts"], params["body_nconsts"]
        carry, _ = _loop(params["body_jaxpr"], values[a : a + b], values[a + b :], [], domain)
        domain.run(params["cond_jaxpr"], [*values[:a], *carry])
        return carry
    if primitive is P.cond_p:
        first, *others = [domain.run(branch, values[1:]) for branch in params["branches"]]
        for other in others:
            first = [domain.join(a, b) for a, b in zip(first, other)]
        return first
    return domain.run(params["call_jaxpr" if "call_jaxpr" in params else "jaxpr"], values)


def _scan(eqn: Any, values: list[Any], domain: Domain) -> list[Any]:
    n_consts, n_carry = walk.scan_counts(eqn)
    consts, init, xs = values[:n_consts], values[n_consts : n_consts + n_carry], values[n_consts + n_carry :]
    carry, ys = _loop(eqn.params["jaxpr"], consts, init, [domain.layer(x) for x in xs], domain)
    return [*carry, *(domain.stack(y, eqn.params["length"]) for y in ys)]


def _loop(body: Any, consts: list[Any], carry: list[Any], xs: list[Any], domain: Domain) -> tuple[list, list]:
    while True:
        out = domain.run(body, [*consts, *carry, *xs])
        joined = [domain.join(a, b) for a, b in zip(carry, out)]
        if all(a is b for a, b in zip(joined, carry)):
            return joined, out[len(carry) :]
        carry = joined
