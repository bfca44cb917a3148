"""One small evaluator of a traced program, in which some values are compressed weights instead of arrays.

`walk` runs a jaxpr equation by equation. Each equation that a compressed weight enters is first offered to the
reading's `visit`; what `visit` declines is handled here: control flow is descended into with the weight kept
compressed, anything else gets the dense weight, which is always right.

Only public JAX API is used, but for the two attributes in `bind`.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax
from jax.extend import core
from jax.extend.core import primitives

from spartax.arrays.verbs import dense, is_leaf, sliceable

Visit = Callable[[Any, list[Any], int], list[Any] | None]
# visit(eqn, values, trips) -> the outputs of the equation, or None to leave it to the walker. `trips` is the number of
# times the equation runs: the product of the lengths of the scans around it.


def walk(jaxpr: Any, values: Sequence[Any], visit: Visit, *, trips: int = 1, everywhere: bool = False) -> list[Any]:
    """Evaluate a (closed) jaxpr on arrays and compressed weights.

    Args:
      jaxpr: the program.
      values: one array or leaf for each of its arguments.
      visit: the reading.
      trips: how often this program runs.
      everywhere: offer every equation to `visit`, and descend into control flow that no compressed weight enters.

    Returns:
      The outputs, arrays or leaves.
    """
    body, consts = getattr(jaxpr, "jaxpr", jaxpr), getattr(jaxpr, "consts", ())
    env: dict[Any, Any] = dict(zip((*body.constvars, *body.invars), (*consts, *values)))

    def read(var: Any) -> Any:
        return var.val if isinstance(var, core.Literal) else env[var]

    for eqn in body.eqns:
        inputs = [read(v) for v in eqn.invars]
        touched = any(is_leaf(v) for v in inputs)
        outputs = visit(eqn, inputs, trips) if touched or everywhere else None
        if outputs is None:
            outputs = _default(eqn, inputs, visit, trips, everywhere, touched)
        env.update(zip(eqn.outvars, outputs))
    return [read(v) for v in body.outvars]


def _default(eqn: Any, values: list[Any], visit: Visit, trips: int, everywhere: bool, touched: bool) -> list[Any]:
    descend = DESCEND.get(eqn.primitive)
    # A custom derivative is kept as it is unless a compressed weight must get inside.
    if descend is None or not (touched or (everywhere and eqn.primitive is not primitives.custom_jvp_call_p)):
        return bind(eqn, [dense(v) if is_leaf(v) else v for v in values])

    def run(jaxpr: Any, inner: Sequence[Any], times: int = 1) -> list[Any]:
        return walk(jaxpr, inner, visit, trips=trips * times, everywhere=everywhere)

    return descend(eqn, values, run)


def bind(eqn: Any, values: Sequence[Any]) -> list[Any]:
    """Run one equation as it stands, in the context it was traced in."""
    with eqn.ctx.manager:
        out = eqn.primitive.bind(*values, **eqn.primitive.get_bind_params(eqn.params))
    return list(out) if eqn.primitive.multiple_results else [out]


Run = Callable[..., list[Any]]


def _arrays(values: Sequence[Any]) -> list[Any]:
    return [dense(v) if is_leaf(v) else v for v in values]


def _inline(name: str) -> Callable[[Any, list[Any], Run], list[Any]]:
    return lambda eqn, values, run: run(eqn.params[name], values)


def _remat(eqn: Any, values: list[Any], run: Run) -> list[Any]:
    body = jax.checkpoint(
        lambda *v: _arrays(run(eqn.params["jaxpr"], v)),
        policy=eqn.params["policy"],
        prevent_cse=eqn.params["prevent_cse"],
    )
    return body(*values)


def scan_counts(eqn: Any) -> tuple[int, int]:
    """(constants, carries) of a scan, read off its shapes: the parameters that say it differ between JAX versions.

    A per-step input or output has one axis more outside the body than inside; a constant or carry has not.
    """
    body = getattr(eqn.params["jaxpr"], "jaxpr", eqn.params["jaxpr"])
    carries = sum(o.aval.ndim == i.aval.ndim for o, i in zip(eqn.outvars, body.outvars))
    same = sum(o.aval.ndim == i.aval.ndim for o, i in zip(eqn.invars, body.invars))
    return same - carries, carries


def _scan(eqn: Any, values: list[Any], run: Run) -> list[Any]:
    n_consts, n_carry = scan_counts(eqn)
    length = eqn.params["length"]
    consts, init, xs = values[:n_consts], values[n_consts : n_consts + n_carry], values[n_consts + n_carry :]
    xs = [dense(v) if is_leaf(v) and not sliceable(v) else v for v in xs]

    def step(carry: list[Any], x: list[Any]) -> tuple[list[Any], list[Any]]:
        out = _arrays(run(eqn.params["jaxpr"], [*consts, *carry, *x], length))
        return out[:n_carry], out[n_carry:]

    options = {name: eqn.params[name] for name in ("length", "reverse", "unroll")}
    carry, ys = lax.scan(step, _arrays(init), xs, **options)
    return [*carry, *ys]


def _cond(eqn: Any, values: list[Any], run: Run) -> list[Any]:
    branches = [lambda *v, j=j: _arrays(run(j, v)) for j in eqn.params["branches"]]
    return lax.switch(_arrays(values[:1])[0], branches, *values[1:])


def _while(eqn: Any, values: list[Any], run: Run) -> list[Any]:
    a, b = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
    test_consts, body_consts, init = values[:a], values[a : a + b], _arrays(values[a + b :])
    return lax.while_loop(
        lambda carry: _arrays(run(eqn.params["cond_jaxpr"], [*test_consts, *carry]))[0],
        lambda carry: _arrays(run(eqn.params["body_jaxpr"], [*body_consts, *carry])),
        init,
    )


DESCEND = {
    primitives.jit_p: _inline("jaxpr"),
    primitives.closed_call_p: _inline("call_jaxpr"),
    primitives.custom_jvp_call_p: _inline("call_jaxpr"),
    primitives.remat_p: _remat,
    primitives.scan_p: _scan,
    primitives.cond_p: _cond,
    primitives.while_p: _while,
}


def trace(fn: Callable[..., Any], args: tuple, kwargs: dict) -> tuple[Any, Any]:
    """(closed jaxpr of `fn`, tree of its outputs), traced with the dense shape of every compressed weight.

    The dense weights are never made: a leaf stands in by shape and dtype.
    """

    def stand_in(x: Any) -> Any:
        return jax.ShapeDtypeStruct(x.shape, x.dtype) if is_leaf(x) else x

    args, kwargs = jax.tree.map(stand_in, (args, kwargs), is_leaf=is_leaf)
    jaxpr, out = jax.make_jaxpr(fn, return_shape=True)(*args, **kwargs)
    return jaxpr, jax.tree.structure(out)


def rewritten(fn: Callable[..., Any], visit: Visit) -> Callable[..., Any]:
    """The function `fn` with every equation offered to `visit`; its arguments are arrays."""

    @functools.wraps(fn)
    def run(*args: Any, **kwargs: Any) -> Any:
        jaxpr, out = jax.make_jaxpr(fn, return_shape=True)(*args, **kwargs)
        outputs = walk(jaxpr, jax.tree.leaves((args, kwargs)), visit, everywhere=True)
        return jax.tree.unflatten(jax.tree.structure(out), outputs)

    return run
