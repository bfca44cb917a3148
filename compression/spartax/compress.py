"""`compress`: read the program, gather the evidence, run the transforms, hand back params and a function."""

from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from spartax import catalog, checks, tree
from spartax.arrays import dense, rounds_inputs
from spartax.arrays.masked import check_masks
from spartax.chain import STALE, chain, steps_of
from spartax.program import Usage, biases, compressed, inspect, scalings
from spartax.program.collect import NEEDS, collect
from spartax.program.lookups import LOOKED_UP
from spartax.records import (
    ApplyFn,
    Array,
    Evidence,
    Info,
    Layout,
    Loss,
    Objective,
    Params,
    Path,
    Rule,
    Transform,
    Weights,
)

MEASURED = STALE - {"originals"}  # fields of the evidence that take values of batches


class Compressed(NamedTuple):
    """What `compress` gives back.

    Attributes:
      params: the params with compressed leaves; weights that were not selected are the same arrays as before.
      apply: jitted `apply(params, x)` that accepts them (and dense params).
      info: for each path `{"steps": [what each transform did]}` or `{"excluded": why}`; JSON friendly. A `"warning"`
        beside the steps names a place at which activations were to be rounded and are not.
    """

    params: Params
    apply: ApplyFn
    info: Info


def compress(
    apply_fn: ApplyFn,
    params: Params,
    *transforms: Transform,
    batches: Iterable[Any] | None = None,
    loss: Loss | None = None,
    key: Array | None = None,
    rule: Rule | None = None,
) -> Compressed:
    """Compress a model once: every transform in its order, each on what the one before left.

    By default every floating weight of two axes or more that a `dot_general` or `conv_general_dilated` of the program
    contracts is compressed; biases, norms and embeddings are not. `params` themselves are left as they are.

    Args:
      apply_fn: pure function `(params, x) -> logits [B, K]`.
      params: pytree of arrays (and compressed leaves).
      *transforms: one or more, such as `prune.prune(...)`, `lowrank.factorize(...)`, `quantize.quantize(...)`.
      batches: iterable of `x` or `(x, y)`, arrays or `jax.ShapeDtypeStruct` when no values are needed. One is enough to
        read the program. May be left out when `rule` names the weights: their axes are then those of Flax kernels
        (`[in, out]`, `[H, W, I, O]`).
      loss: `(logits, y) -> [B]` (or its mean), for transforms that need gradients.
      key: PRNG key, for transforms that draw.
      rule: `(path, weight) -> bool`, in place of the default. It is not asked about biases, norms and other weights
        that are neither contracted nor looked up; an embedding table is compressed if it says yes.

    Raises:
      ValueError: no transform, params that do not fit the function, weights that are not finite, a rule that selects
        nothing, evidence that a transform needs and nobody gave.

    Example:
      >>> import jax.numpy as jnp
      >>> import spartax as sx
      >>> from spartax import prune, quantize
      >>> apply = lambda params, x: x @ params["kernel"]
      >>> params = {"kernel": jnp.array([[1.0, 127.0], [-127.0, 2.0]])}
      >>> steps = prune.prune(prune.magnitude(), 0.5), quantize.quantize(quantize.integer(bits=8))
      >>> out = sx.compress(apply, params, *steps, batches=[jnp.ones((1, 2))])
      >>> sx.dense(out.params)["kernel"].tolist()
      [[0.0, 127.0], [-127.0, 0.0]]
      >>> [step["method"] for step in out.info["kernel"]["steps"]]
      ['prune', 'quantize']
      >>> out.apply(out.params, jnp.array([[1.0, 1.0]])).tolist()
      [[-127.0, 127.0]]
    """
    if not transforms:
        raise ValueError("transforms: give at least one, such as prune.prune(prune.magnitude()).")
    pipeline = chain(*transforms)
    first, batches = _first(batches, pipeline.needs)
    x = None if first is None else _input(first)
    evidence, reasons = select(apply_fn, params, x, key, rule, pipeline.needs)
    if pipeline.check is not None:
        pipeline.check(params, evidence)
    if "biases" in pipeline.needs and first is not None:
        evidence = evidence._replace(biases=biases(apply_fn, params, x))
    if "scalings" in pipeline.needs and first is not None:
        evidence = evidence._replace(scalings=scalings(apply_fn, params, x))
    apply = compressed(apply_fn)
    needs = pipeline.needs | {"objective"}  # reports say whether the pruned network still conducts
    evidence = evidence._replace(**measure(needs, apply, params, evidence.layouts, batches, loss))
    catalog.require(pipeline.needs, evidence)
    new, state = pipeline.init(params, evidence)
    new, _, done = pipeline.update(new, state, evidence)
    info: Info = {
        p: {"excluded": reasons[p]} if p in reasons else {"steps": steps_of(done, p)} for p in tree.weights(params)
    }
    for path, where in ({} if x is None else _unrounded(apply_fn, new, x)).items():
        info[path]["warning"] = f"made dense ({where}): activations that meet it there are not rounded"
    return Compressed(new, apply, info)


def _unrounded(apply_fn: ApplyFn, params: Params, x: Any) -> dict[Path, str]:
    """Weights that round the activations they meet, where the program makes them dense, and what does."""
    paths = [path for path, w in tree.weights(params).items() if rounds_inputs(w)]
    usages = inspect(apply_fn, params, x) if paths else {}
    where = {
        path: [name for name, what in usages[path].others if what == "made dense"]
        + [plan.why for plan in usages[path].plans if plan.kernel is None]
        for path in paths
    }
    return {path: ", ".join(dict.fromkeys(found)) for path, found in where.items() if found}


def select(
    apply_fn: ApplyFn, params: Params, x: Any, key: Array | None, rule: Rule | None, needs: Collection[str] = ()
) -> tuple[Evidence, dict[Path, str]]:
    """Which weights are compressed, with all that is known without data, and why the others are not.

    Args:
      apply_fn: pure function `(params, x) -> logits [B, K]`.
      params: pytree of arrays and compressed leaves.
      x: a batch of inputs or its `jax.ShapeDtypeStruct`; None leaves the axes to the rule of `compress`.
      key: PRNG key of the evidence.
      rule: as in `compress`.
      needs: fields of the evidence that the transforms will want. The rows of an embedding table are its outputs, each
        of them a channel of its own, unless statistics of inputs are wanted: then its rows are its inputs, as they are
        in the product with one-hot vectors that a lookup is.

    Raises:
      ValueError: params that do not fit the function, masks that do not fit their weights, weights that are not
        finite, a rule that selects nothing.
    """
    for path, w in tree.weights(params).items():
        check_masks(path, w)
    usages = None if x is None else inspect(apply_fn, params, x)
    reasons = _exclusions(params, usages, rule)
    chosen = {path: w for path, w in tree.weights(params).items() if path not in reasons}
    evidence = Evidence(
        layouts={path: _layout(w, None if usages is None else usages[path], needs) for path, w in chosen.items()},
        key=key,
        originals={path: dense(w) for path, w in chosen.items()},
        uses=None if usages is None else {path: usages[path].uses for path in chosen},
    )
    return evidence, reasons


def _first(batches: Iterable[Any] | None, needs: Collection[str]) -> tuple[Any, tuple[Any, ...]]:
    """The first batch, and all of them where something must be measured on them."""
    if batches is None:
        return None, ()
    if hasattr(batches, "shape"):
        raise ValueError("batches must be an iterable of batches; got one array: write batches=[x].")
    rest = iter(batches)
    for first in rest:
        return first, (first, *rest) if MEASURED & set(needs) else (first,)
    raise ValueError("batches is empty; one batch is needed to read the program.")


def _input(batch: Any) -> Any:
    return batch[0] if isinstance(batch, tuple | list) else batch


def _exclusions(params: Params, usages: dict[Path, Usage] | None, rule: Rule | None) -> dict[Path, str]:
    """Why each weight that is not compressed is not."""
    if usages is None and rule is None:
        raise ValueError("give batches (one, or its jax.ShapeDtypeStruct, shows how weights are used) or a rule.")
    weights = tree.weights(params)
    for path, w in weights.items():
        if tree.is_floating(w):
            checks.finite(path, dense(w))
    reasons = {path: _why_not(path, w, usages, rule) for path, w in weights.items()}
    if all(reasons.values()):
        known = "; ".join(f"{path}: {why}" for path, why in list(reasons.items())[:8])
        raise ValueError(f"{'rule' if rule else 'the default rule'} selects no weight to compress. {known}")
    return {path: why for path, why in reasons.items() if why}


def _why_not(path: Path, weight: Any, usages: dict[Path, Usage] | None, rule: Rule | None) -> str | None:
    if not tree.is_floating(weight):
        return "not a floating array"
    usage = None if usages is None else usages[path]
    stack = () if usage is None or usage.layout is None else usage.layout.stack
    if weight.ndim - len(stack) < 2:
        return "fewer than two axes: a bias, a norm or a vector"
    table = usage is not None and usage.rows is not None
    if usage is not None and usage.layout is None and not table:
        return "never contracted with an activation by the program"
    if rule is not None:
        return None if rule(path, weight) else "left out by the rule"
    return "an embedding: its rows are looked up; compressed only when a rule asks for it" if table else None


def _layout(weight: Any, usage: Usage | None, needs: Collection[str]) -> Layout:
    """As the program uses it; of a table the rows are outputs, or inputs (`select`); else as Flax stores kernels."""
    if usage is not None and usage.rows is not None and LOOKED_UP & set(needs):
        return usage.rows
    if usage is not None:
        return usage.layout or Layout(tuple(range(1, weight.ndim)), (0,))
    return Layout(tuple(range(weight.ndim - 1)), (weight.ndim - 1,))


def measure(
    needs: Collection[str],
    apply: ApplyFn,
    params: Params,
    paths: Collection[Path],
    batches: tuple[Any, ...],
    loss: Loss | None,
) -> dict[str, Any]:
    """The fields of the evidence that take values of batches; those that nobody gave the data for are left out.

    An objective needs no values, the shape of a batch is enough for methods that look at no data.

    Args:
      needs: names of fields; those that take no batches are passed over.
      apply: function `(params, x) -> logits [B, K]` that accepts compressed leaves.
      params: pytree of arrays and compressed leaves.
      paths: the selected weights.
      batches: `x` or `(x, y)`.
      loss: `(logits, y) -> [B]`, or its mean.
    """
    found: dict[str, Any] = {}
    if "objective" in needs and batches:
        put = jax.tree_util.Partial(_logits, tree.argument(apply), params)
        rest = {path: w for path, w in tree.weights(params).items() if path not in set(paths)}
        others = {path: dense(w) for path, w in rest.items() if tree.is_floating(w)}
        found["objective"] = Objective(put, batches, loss, others)
    if not batches or isinstance(_input(batches[0]), jax.ShapeDtypeStruct):
        return found
    judged = loss is not None and all(isinstance(batch, tuple | list) for batch in batches)
    if "grads" in needs and judged:
        found["grads"] = _gradients(apply, params, paths, batches, loss)
    wanted = [need for need in NEEDS if need in needs and (judged or need != "signals")]
    if wanted:
        found |= collect(apply, params, batches, wanted, paths=list(paths), loss=loss if judged else None)
    return found


def _logits(apply: ApplyFn, params: Params, weights: Weights, x: Array) -> Array:
    return apply(tree.replace(params, weights), x)


def _gradients(
    apply: ApplyFn, params: Params, paths: Collection[Path], batches: tuple[Any, ...], loss: Loss
) -> Weights:
    """Gradient of the mean loss over all batches in the dense weights."""
    originals = {path: dense(w) for path, w in tree.pick(params, paths).items()}

    def objective(weights: Weights, params: Params, x: Array, y: Array) -> Array:
        return jnp.mean(loss(apply(tree.replace(params, weights), x), y))

    @jax.jit
    def add(total: Weights, weights: Weights, params: Params, x: Array, y: Array) -> Weights:
        new = jax.grad(objective)(weights, params, x, y)
        return jax.tree.map(lambda a, b: a + len(x) * b, total, new)

    total, count = jax.tree.map(jnp.zeros_like, originals), 0
    for batch in batches:
        total, count = add(total, originals, params, *batch), count + len(batch[0])
    for path, gradient in total.items():
        checks.finite(f"the gradient of the loss in {path}", gradient)
    return jax.tree.map(lambda a: a / count, total)
