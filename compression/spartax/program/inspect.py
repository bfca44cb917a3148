"""`inspect` and `explain`: how the program uses each weight, and which kernel each use will hit."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from spartax import tree
from spartax.arrays import verbs
from spartax.arrays.use import Use
from spartax.program import walk
from spartax.program.follow import Tagged, following, tagged
from spartax.records import Layout, Params, Path


class Usage(NamedTuple):
    """How the program uses one weight.

    Attributes:
      layout: contracted, output and stack axes of the weight as it is stored, or None if it is never contracted.
      uses: every contraction with it.
      plans: for each use, the kernel and the cost with the weight as it is now (dense or compressed).
      others: for every other operation that reads it: (primitive, what becomes of the weight).
      macs: multiply-adds per example of the dense weight.
      macs_now: multiply-adds per example of the weight as it is now.
      shape: shape of the weight.
    """

    layout: Layout | None
    uses: tuple[Use, ...]
    plans: tuple[verbs.Plan, ...]
    others: tuple[tuple[str, str], ...]
    macs: int
    macs_now: int
    shape: tuple[int, ...]

    @property
    def rows(self) -> Layout | None:
        """The layout of a table that is looked up and never contracted: one-hot vectors meet its rows."""
        looked_up = any(name == "gather" for name, _ in self.others)
        return Layout((0,), tuple(range(1, len(self.shape)))) if looked_up and self.layout is None else None


class Seen(NamedTuple):
    """One contraction with a weight: how it is used, how it is computed, and the axes of the stored weight."""

    use: Use
    plan: verbs.Plan
    layout: Layout


def inspect(apply_fn: Callable[..., Any], params: Params, *args: Any) -> dict[Path, Usage]:
    """How the program `apply_fn(params, *args)` uses every floating weight of `params`.

    Nothing is computed: the program is walked on shapes. A body of `scan` counts as often as it runs; both branches of
    a `cond` count.

    Args:
      apply_fn: the function.
      params: arrays, compressed leaves or `jax.ShapeDtypeStruct`.
      *args: the other arguments, arrays or `jax.ShapeDtypeStruct`; the leading axis of the first one is the batch.

    Returns:
      `{path: Usage}` for every floating weight, in tree order.

    Raises:
      ValueError: the function does not accept these params or inputs.

    Example:
      >>> import jax.numpy as jnp
      >>> import spartax as sx
      >>> apply = lambda params, x: x @ params["kernel"] + params["bias"]
      >>> usages = sx.inspect(apply, {"kernel": jnp.ones((4, 2)), "bias": jnp.zeros(2)}, jnp.ones((1, 4)))
      >>> usages["kernel"].layout.inputs, usages["kernel"].layout.outputs, usages["kernel"].macs
      ((0,), (1,), 8)
      >>> usages["bias"].layout is None
      True
    """
    named = {path: w for path, w in tree.weights(params).items() if tree.is_floating(w)}
    uses: dict[Path, list[Seen]] = {path: [] for path in named}
    others: dict[Path, list[tuple[str, str]]] = {path: [] for path in named}

    def on_use(tag: Tagged, use: Use, x: Any) -> None:
        uses[tag.path].append(Seen(use, _plan(tag, use, x), tag.stored(use.layout)))

    def run(params: Params, args: tuple) -> None:
        jaxpr, _ = trace(apply_fn, params, args)
        values = jax.tree.leaves((tagged(params, named), *args), is_leaf=verbs.is_leaf)
        walk.walk(jaxpr, values, following(on_use, lambda tag, name, what: others[tag.path].append((name, what))))

    jax.eval_shape(run, params, args)
    leaves = jax.tree.leaves(args)
    batch = leaves[0].shape[0] if leaves and leaves[0].ndim else 1
    return {path: _usage(uses[path], others[path], w, batch) for path, w in named.items()}


def _plan(tag: Tagged, use: Use, x: Any) -> verbs.Plan:
    """How `compressed` multiplies this weight: of two that meet, only the left one can have a kernel."""
    if not verbs.is_leaf(tag.value):
        return verbs.Plan(None, "dense", use.macs)
    if not use.left and isinstance(x, Tagged) and verbs.is_leaf(x.value):
        return verbs.Plan(None, f"{type(tag.value).__name__}: made dense, it meets another compressed weight", use.macs)
    return verbs.plan(tag.value, use)


def trace(apply_fn: Callable[..., Any], params: Params, args: tuple) -> tuple[Any, Any]:
    """`walk.trace` of `apply_fn(params, *args)`, whose failure says what came."""
    try:
        return walk.trace(apply_fn, (params, *args), {})
    except Exception as error:
        shapes = ", ".join(f"{p} {tuple(w.shape)}" for p, w in list(tree.weights(params).items())[:6])
        raise ValueError(
            f"apply_fn(params, x) fails on these params and inputs: {error}\nparams begin with {shapes}"
        ) from error


def _usage(seen: list[Seen], others: list[tuple[str, str]], weight: Any, batch: int) -> Usage:
    return Usage(
        layout=seen[0].layout if seen else None,
        uses=tuple(s.use for s in seen),
        plans=tuple(s.plan for s in seen),
        others=tuple(others),
        macs=math.ceil(sum(s.use.macs for s in seen) / max(batch, 1)),
        macs_now=math.ceil(sum(s.plan.macs for s in seen) / max(batch, 1)),
        shape=tuple(weight.shape),
    )


def explain(apply_fn: Callable[..., Any], params: Params, *args: Any) -> dict[Path, tuple[str, ...]]:
    """For every floating weight, which kernel each of its uses hits, or where and why it is made dense.

    Args:
      apply_fn: the function.
      params: arrays or compressed leaves.
      *args: the other arguments, as in `inspect`.

    Returns:
      `{path: one line per use}`.

    Example:
      >>> import jax.numpy as jnp
      >>> import spartax as sx
      >>> apply = lambda params, x: x @ params["a"] @ params["b"]
      >>> params = {"a": sx.LowRank(jnp.ones((8, 1)), jnp.ones((1, 8))), "b": jnp.ones((8, 2))}
      >>> for path, lines in sx.explain(apply, params, jnp.ones((1, 8))).items():
      ...     print(path, *lines)
      a dot_general: LowRank: two thin products (rank 1)
      b dot_general: dense (dense)
    """

    def lines(usage: Usage) -> tuple[str, ...]:
        hits = [f"{u.op}: {p.kernel or 'dense'} ({p.why})" for u, p in zip(usage.uses, usage.plans)]
        return (*hits, *(f"{name}: {what}" for name, what in usage.others)) or ("never read",)

    return {path: lines(usage) for path, usage in inspect(apply_fn, params, *args).items()}
