"""`operations`: every contraction with a weight on its own, with the input that meets it."""

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax

from spartax import checks
from spartax.arrays import verbs
from spartax.arrays.use import Use
from spartax.program import rules, walk
from spartax.program.follow import Tagged, following, tagged
from spartax.program.inspect import trace
from spartax.records import ApplyFn, Array, Params, Path

_BODIES = (rules.P.scan_p, rules.P.cond_p, rules.P.while_p)
Steps = tuple[tuple[Any, tuple], ...]  # (equation, operands after the first) of what happens to a weight on its way


class Operation(NamedTuple):
    """One contraction with a weight, as the program writes it.

    Attributes:
      apply: pure function `(weight, x) -> output`: what the program does to the stored weight before it is contracted
        (casts, transposes, a layer taken out of a stack), and the contraction. `compressed(apply)` takes leaves.
      x: the activation that meets the weight.
    """

    apply: Callable[[Array, Array], Array]
    x: Array


def operations(apply_fn: ApplyFn, params: Params, x: Any, paths: Iterable[Path]) -> dict[Path, tuple[Operation, ...]]:
    """Every contraction with these weights, in the order of the program: `operation.apply(weight, operation.x)`.

    The program runs once, with every weight dense, and the inputs of all these contractions are kept.

    Args:
      apply_fn: pure function `(params, x) -> logits [B, K]`.
      params: pytree of arrays and compressed leaves.
      x: one batch of inputs, with values.
      paths: the weights.

    Raises:
      ValueError: a function that does not accept these params and inputs, an unknown path, a weight that is never
        contracted, one that is used inside `scan`, `cond` or `while`, whose turns have inputs of their own, or one that
        is taken out of a stack at a computed index.
    """
    paths = tuple(paths)
    applies: dict[Path, list[Callable[[Array, Array], Array]]] = {path: [] for path in paths}

    @jax.jit
    def run(params: Params, x: Any) -> dict[Path, list[Array]]:
        inputs: dict[Path, list[Array]] = {path: [] for path in paths}

        def on_use(tag: Tagged, steps: Steps, use: Use, x: Any) -> None:
            applies[tag.path].append(functools.partial(_apply, steps, use))
            inputs[tag.path].append(verbs.dense(x) if verbs.is_leaf(x) else x)

        jaxpr, _ = trace(apply_fn, params, (x,))
        values = jax.tree.leaves((tagged(params, paths), x), is_leaf=verbs.is_leaf)
        walk.walk(jaxpr, values, _remembering(on_use))
        return inputs

    inputs = run(verbs.dense(params), x)
    for path, found in inputs.items():
        if not found:
            raise ValueError(f"{path}: never contracted with an activation, so there is no operation to run.")
    return {path: tuple(map(Operation, applies[path], inputs[path])) for path in paths}


def _apply(steps: Steps, use: Use, weight: Array, x: Array) -> Array:
    for eqn, rest in steps:
        (weight,) = walk.bind(eqn, [weight, *rest])
    return use.apply(weight, x)


def _remembering(on_use: Callable[[Tagged, Steps, Use, Any], None]) -> walk.Visit:
    """`following`, with what the program did to a weight on its way to each use of it."""
    ways: dict[int, tuple[Tagged, Steps]] = {}  # by identity; the weight is held, so that no other gets its `id`

    def steps_of(tag: Tagged) -> Steps:
        return ways.get(id(tag), (tag, ()))[1]

    follow = following(lambda tag, use, x: on_use(tag, steps_of(tag), use, x))

    def visit(eqn: Any, values: list[Any], trips: int) -> list[Any] | None:
        tags = [v for v in values if isinstance(v, Tagged)]
        if tags and eqn.primitive in _BODIES:
            raise ValueError(
                f"{tags[0].path}: used inside {eqn.primitive.name}, where every turn or branch has an input of its "
                "own, so its operation cannot be run alone; leave it out by the rule."
            )
        if eqn.primitive is rules.P.remat_p:  # nothing is differentiated, and values must get out
            return walk.walk(eqn.params["jaxpr"], values, visit, trips=trips)
        out = follow(eqn, values, trips)
        if out and isinstance(out[0], Tagged):
            ways[id(out[0])] = out[0], (*steps_of(tags[0]), (eqn, _known(tags[0].path, values[1:])))
        return out

    return visit


def _known(path: Path, values: list[Any]) -> tuple:
    if not all(checks.is_concrete(v) for v in values):
        raise ValueError(
            f"{path}: taken out of a stack at a computed index, so its operation cannot be run alone; leave it out by "
            "the rule."
        )
    return tuple(values)
