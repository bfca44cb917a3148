"""`collect`: what flows into and out of every weight on calibration data, without hooks and without editing a model."""

import math
from collections.abc import Callable, Collection, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from spartax import checks, tree
from spartax.arrays import verbs
from spartax.arrays.use import Use
from spartax.program import walk
from spartax.program.activations import input_rows, inputs_of, output_rows
from spartax.program.follow import Tagged, following, tagged
from spartax.program.inspect import inspect
from spartax.program.lookups import LOOKED_UP, check_table, one_hot_sums
from spartax.program.rules import Lookup
from spartax.records import ApplyFn, Array, Layout, Loss, Params, Path

NEEDS = ("moments", "means", "magnitudes", "peaks", "signals", "ranges", "histograms")
BINS = 4096  # of a histogram
LARGEST = ("ranges", "peaks", "uses")  # kept as the largest over batches; all others are added
Sums = dict[Path, dict[str, Array]]  # for each weight, sums over rows by name


def collect(
    apply_fn: ApplyFn,
    params: Params,
    batches: Iterable[Any],
    needs: Collection[str] = ("moments",),
    *,
    paths: Collection[Path] | None = None,
    loss: Loss | None = None,
) -> dict[str, dict[Path, Array]]:
    """Calibration statistics of every contracted weight, in float32, averaged over all batches.

    A *row* is one input vector that meets the weight: an example for a Dense kernel, an image patch for a convolution,
    flattened in the order of `layout.inputs`, `I` numbers long.

    * `"moments"`: `E[x x^T]` over rows, `[*stack, I, I]` (`[groups, I, I]` for a grouped convolution).
    * `"means"`: `E[x]` over rows, `[*stack, I]`.
    * `"magnitudes"`: `E|x|` over rows, `[*stack, I]`.
    * `"peaks"`: `max |x|` over rows, `[*stack, I]`.
    * `"ranges"`: `min(x, 0)` and `max(x, 0)` over all inputs, `[*stack, 2]`.
    * `"histograms"`: how many inputs (not rows: a pixel counts once) lie in each of `BINS` equal bins from `-m` to `m`,
      `m` the largest size in `"ranges"`, `[*stack, BINS]`; takes a second pass over the batches.
    * `"signals"`: `E_examples[sum over rows of g g^T]`, `[*stack, O, O]`, `g` the gradient of that example's loss in
      the output of the contraction; with `"moments"` it is the Kronecker factorization of the empirical Fisher
      information (Martens and Grosse, arXiv 1503.05671; Grosse and Martens for convolutions, arXiv 1602.01407).

    Rows that are looked up in a table, `table[ids]`, are its product with one-hot vectors, so the inputs of a table
    that nothing contracts are its rows: of the first four statistics, `"moments"` is the diagonal matrix of how often
    each row is looked up, `"means"` that frequency.

    Each contraction passes its row through an identity whose derivative in a zero *probe* is the statistic; the probes
    ride along with the weights through `scan`, `cond` and `remat`, so one gradient collects everything. Sharded batches
    are summed by XLA. A weight used twice adds up the uses that contract the same axes.

    Args:
      apply_fn: pure function `(params, x) -> logits [B, K]`.
      params: pytree of arrays and compressed leaves (used as they are).
      batches: iterable of `x` or `(x, y)`.
      needs: names of the statistics.
      paths: the weights, contracted or tables; every contracted floating weight if None.
      loss: `(logits, y) -> [B]` (or its mean), for `"signals"`, which need labelled batches.

    Returns:
      `{need: {path: array}}`.

    Raises:
      ValueError: an unknown need, no batch, `"signals"` without labels or loss, a path that is not contracted where a
        statistic can be taken (inside `custom_vjp` or `shard_map`, or with its rows sliced or permuted by the program)
        or that no batch reaches, ranges or peaks of a weight used several times (sums do not show the largest),
        statistics that are not finite; of a table, another statistic than the first four, or moments of more than 8192
        rows.
    """
    for need in needs:
        checks.one_of("needs", need, NEEDS)
    if "signals" in needs and loss is None:
        raise ValueError("loss is needed to collect signals, the gradients of the outputs; got None.")
    limits: dict[Path, Array] = {}
    functions = tree.argument(apply_fn), None if loss is None else tree.argument(loss)
    if "histograms" in needs:
        batches = tuple(batches)
        ranges = collect(apply_fn, params, batches, ("ranges",), paths=paths)["ranges"]
        limits = {path: jnp.max(jnp.abs(found), axis=-1) for path, found in ranges.items()}
    total, layouts = None, None
    for batch in batches:
        x, y = batch if isinstance(batch, tuple | list) else (batch, None)
        if "signals" in needs and y is None:
            raise ValueError("batches must be (x, y) to collect signals; got images without labels.")
        layouts = layouts or tuple(_layouts(apply_fn, params, x, paths, needs).items())
        new = _sums(*functions, params, limits, x, y, layouts=layouts, needs=frozenset(needs))
        total = new if total is None else {path: _joined(total[path], new[path]) for path in new}
    if total is None:
        raise ValueError("batches is empty; statistics need at least one batch.")
    return {need: {path: _mean(path, need, sums) for path, sums in total.items()} for need in needs}


def _layouts(
    apply_fn: ApplyFn, params: Params, x: Any, paths: Collection[Path] | None, needs: Collection[str]
) -> dict[Path, Layout]:
    usages = inspect(apply_fn, params, x)
    if paths is None:
        return {path: usage.layout for path, usage in usages.items() if usage.layout is not None}
    layouts = {path: usages[path].layout or usages[path].rows for path in tree.pick(params, paths)}
    missing = [path for path, layout in layouts.items() if layout is None]
    if missing:
        raise ValueError(
            f"{', '.join(missing)}: never contracted with an activation nor looked up, so there is nothing to collect."
        )
    for path in layouts:
        if usages[path].rows is not None:
            check_table(path, usages[path].shape[0], needs)
    return {path: layout for path, layout in layouts.items() if layout is not None}


def _joined(a: dict[str, Array], b: dict[str, Array]) -> dict[str, Array]:
    """The statistics of two batches together."""
    return {name: (jnp.maximum if name in LARGEST else jnp.add)(a[name], b[name]) for name in a}


def _mean(path: Path, need: str, sums: dict[str, Array]) -> Array:
    rows = sums["examples" if need == "signals" else "rows"]
    if checks.is_concrete(rows) and not bool(jnp.all(rows > 0)):
        raise ValueError(
            f"{path}: no row was seen, because the batches hold no example, it is contracted inside custom_vjp or "
            "shard_map, in a branch that these batches do not take, or with its rows sliced or permuted by the "
            "program; leave it out by the rule, or use a method that needs no statistics."
        )
    if need == "histograms":
        return sums[need]
    if need in ("ranges", "peaks"):
        return _largest(path, need, sums)
    value = sums[need] / rows.reshape(*rows.shape, *(1,) * (sums[need].ndim - rows.ndim))
    checks.finite(f"the {need} of {path}", value)
    return value


def _largest(path: Path, need: str, sums: dict[str, Array]) -> Array:
    """Peaks, or ranges from `-min(x, 0)` and `max(x, 0)`: each a sum over the uses of the weight in one run."""
    if checks.is_concrete(sums["uses"]) and bool(jnp.any(sums["uses"] > 1)):
        raise ValueError(
            f"{path}: used {int(jnp.max(sums['uses']))} times by the program, and the ranges of its inputs cannot be "
            "told apart; leave it out by the rule, or use dynamic ranges."
        )
    checks.finite(f"the {need} of {path}", sums[need])
    return sums[need] * jnp.array([-1.0, 1.0]) if need == "ranges" else sums[need]


@jax.jit(static_argnames=("layouts", "needs"))
def _sums(
    apply_fn: ApplyFn, loss: Loss | None, params: Params, limits: dict[Path, Array], x: Array, y: Array | None, *,
    layouts: tuple[tuple[Path, Layout], ...], needs: frozenset[str],
) -> Sums:  # fmt: skip
    """The sums over one batch; `limits` are the ends of the histograms."""
    known, weights = dict(layouts), tree.pick(params, dict(layouts))
    shapes = {path: tuple(w.shape) for path, w in weights.items()}

    def total(probes: Sums) -> Array:
        jaxpr, out_tree = walk.trace(apply_fn, (params, x), {})
        probes = {path: {**probe, "limit": limits[path]} if limits else probe for path, probe in probes.items()}
        values = jax.tree.leaves((tagged(params, known, probes), x), is_leaf=verbs.is_leaf)
        outputs = walk.walk(jaxpr, values, following(_tap(known, shapes, needs), on_rows=_tap_rows(known, needs)))
        logits = out_tree.unflatten([verbs.dense(v) if verbs.is_leaf(v) else v for v in outputs])
        if "signals" not in needs or loss is None or y is None:
            floats = [jnp.sum(v) for v in jax.tree.leaves(logits) if jnp.issubdtype(v.dtype, jnp.floating)]
            return sum(floats, start=jnp.zeros(()))
        each = loss(logits, y)
        return jnp.sum(each) if each.ndim else each * x.shape[0]

    probes = {path: _zeros(shapes[path], layout, needs) for path, layout in layouts}
    return {
        path: {**values, "examples": _examples(values, x.shape[0])} for path, values in jax.grad(total)(probes).items()
    }


def _examples(sums: dict[str, Array], count: int) -> Array:
    """The number of examples, in the shape of the stack."""
    return jnp.where(sums["rows"] > 0, jnp.float32(count), 0.0)


def _zeros(shape: tuple[int, ...], layout: Layout, needs: frozenset[str]) -> dict[str, Array]:
    """Probes of one weight."""
    stack = tuple(shape[a] for a in layout.stack)
    inputs = math.prod(shape[a] for a in layout.inputs)
    outputs = math.prod(shape[a] for a in layout.outputs)
    group = (layout.groups,) if layout.groups > 1 else ()
    sizes = {"moments": (*group, inputs, inputs), "means": (*group, inputs), "magnitudes": (*group, inputs)}
    sizes["peaks"] = (*group, inputs)
    sizes["signals"] = (*group, outputs // layout.groups, outputs // layout.groups)
    sizes |= {"ranges": (2,), "histograms": (BINS,)}
    return {
        "rows": jnp.zeros(stack),
        "uses": jnp.zeros(stack),
        **{need: jnp.zeros((*stack, *sizes[need])) for need in needs},
    }


def _tap(
    layouts: dict[Path, Layout], shapes: dict[Path, tuple[int, ...]], needs: frozenset[str]
) -> Callable[[Tagged, Use, Array], list[Array] | None]:
    """Compute a contraction with identities around it that pour its rows into the probes."""
    inputs = needs - {"signals"}

    def on_use(tag: Tagged, use: Use, x: Array) -> list[Array] | None:
        layout, own = layouts[tag.path], use.layout
        if tag.stored(own) != layout or use.params.get("batch_group_count", 1) > 1:
            return None
        told = {own.inputs: layout.inputs} | ({own.outputs: layout.outputs} if "signals" in needs else {})
        if not all(tag.shows(axes, math.prod(shapes[tag.path][a] for a in stored)) for axes, stored in told.items()):
            return None
        into = {name: probe for name, probe in tag.probes.items() if name != "signals"}
        out = use.apply(verbs.dense(tag), _pour(x, into, lambda x, limit: _input_sums(use, x, inputs, limit)))
        return [_pour_gradient(out, tag.probes["signals"], use) if "signals" in needs else out]

    return on_use


def _tap_rows(
    layouts: dict[Path, Layout], needs: frozenset[str]
) -> Callable[[Tagged, Lookup, Array], list[Array] | None]:
    """Pour the one-hot vectors that a lookup multiplies a table by into the probes."""

    def on_rows(tag: Tagged, lookup: Lookup, rows: Array) -> list[Array] | None:
        inputs_first = Layout((0,), tuple(range(1, tag.ndim)))
        if needs - LOOKED_UP or tag.stored(inputs_first) != layouts[tag.path]:
            return None
        known = rows, lookup.counts(tag.shape[0])
        return [_pour(known, tag.probes, lambda known, _: one_hot_sums(known[1], needs))[0]]

    return on_rows


def _pour(x: Any, probes: dict[str, Array], summed: Callable[[Any, Any], dict[str, Array]]) -> Any:
    """`x`, whose derivative in the probes is `summed(x, limit)`, whatever the gradient of the result."""

    @jax.custom_vjp
    def pour(x: Any, probes: dict[str, Array]) -> Any:
        return x

    def backward(kept: tuple[Any, Any], g: Any) -> tuple[Any, dict[str, Array]]:
        x, limit = kept
        none = {} if limit is None else {"limit": jnp.zeros_like(limit)}
        return g, summed(x, limit) | none

    pour.defvjp(lambda x, probes: (x, (x, probes.get("limit"))), backward)
    return pour(x, probes)


def _pour_gradient(out: Array, probe: Array, use: Use) -> Array:
    """`out`, whose derivative in the probe is the sum of `g g^T` over its rows, `g` the gradient of the result."""

    @jax.custom_vjp
    def pour(out: Array, probe: Array) -> Array:
        return out

    pour.defvjp(lambda out, probe: (out, None), lambda _, g: (g, _gram(output_rows(use, g))))
    return pour(out, probe)


def _input_sums(use: Use, x: Array, needs: frozenset[str], limit: Array | None) -> dict[str, Array]:
    rows = input_rows(use, x)
    grouped = use.layout.groups > 1
    stack = rows.shape[: rows.ndim - 2 - grouped]
    sums = {"rows": jnp.full(stack, rows.shape[-2], jnp.float32), "uses": jnp.ones(stack)}
    values = inputs_of(use, x).reshape(*stack, -1)
    if "ranges" in needs:
        ends = jnp.max(-values, axis=-1, initial=0), jnp.max(values, axis=-1, initial=0)
        sums["ranges"] = jnp.stack(ends, axis=-1)
    if "histograms" in needs:
        sums["histograms"] = _histogram(values, limit)
    if "moments" in needs:
        sums["moments"] = _gram(rows)
    if "means" in needs:
        sums["means"] = jnp.sum(rows, axis=-2)
    if "magnitudes" in needs:
        sums["magnitudes"] = jnp.sum(jnp.abs(rows), axis=-2)
    if "peaks" in needs:
        sums["peaks"] = jnp.max(jnp.abs(rows), axis=-2)
    return sums


def _histogram(values: Array, limit: Any) -> Array:
    """Counts `[*stack, BINS]` of values `[*stack, N]` in equal bins from `-limit` to `limit`, the ends included."""
    width = jnp.where(limit > 0, limit, 1.0)[..., None] * (2 / BINS)
    place = jnp.clip(jnp.floor(values / width) + BINS // 2, 0, BINS - 1).astype(jnp.int32)
    flat = place.reshape(-1, place.shape[-1])
    counts = jax.vmap(lambda p: jnp.zeros(BINS, jnp.int32).at[p].add(1))(flat)
    return counts.astype(jnp.float32).reshape(*place.shape[:-1], BINS)


def _gram(rows: Array) -> Array:
    """Sum of `r r^T` over rows `[..., N, I]`."""
    return jnp.einsum("...ni,...nj->...ij", rows, rows, precision=lax.Precision.HIGHEST)
