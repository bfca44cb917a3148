"""Seconds of every layer by the fraction of its weight that is kept: the table of `prune.by_latency`."""

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from spartax import checks, tree
from spartax.arrays import Masked, dense, pack
from spartax.compress import select
from spartax.measure.latency import latency
from spartax.program import Operation, compressed, operations
from spartax.prune.patterns.block import block
from spartax.records import ApplyFn, Array, Layout, Params, Path, Pattern, Rule

Form = Callable[[Any, Array, Layout], Any]  # (weight, mask, layout) -> what takes the place of the weight


def layer_seconds(
    apply_fn: ApplyFn,
    params: Params,
    x: Any,
    pattern: Pattern | None = None,
    kept: Iterable[float] = (1.0, 0.75, 0.5, 0.25, 0.1),
    *,
    form: Form | None = None,
    rule: Rule | None = None,
    warmups: int = 10,
    repeats: int = 50,
) -> dict[Path, dict[float, float]]:
    """Seconds that the operation of every selected weight takes, by the fraction of the weight that is kept.

    Each operation is run alone, jitted, on the input that reaches it for the batch `x`: once with the weight as it
    stands, and once for each fraction with the largest entries that the pattern keeps. All are timed in turns
    (`latency`), and the median is given; a weight that several operations use gets the sum of theirs. The time of a
    call of a jitted function is part of each, and outweighs small layers.

    The fractions are those that the pattern reaches in each weight, one unit (a block, a channel) at least: a weight of
    a single block is only measured whole. Give `prune.prune` the same pattern. What the kernels of a form gain depends
    on the device: measure where the network will run.

    Args:
      apply_fn: pure function `(params, x) -> logits [B, K]`.
      params: pytree of arrays (and compressed leaves).
      x: one batch of inputs, with values and of the size that counts.
      pattern: which entries are kept together; `prune.block()` when left out.
      kept: fractions in (0, 1]; the whole weight is measured in any case.
      form: `(weight, mask, layout) -> array or leaf` that is run in place of the weight. When left out, the packed
        `Masked` weight, so the kernels of blocks and of N:M; `measure.fewer_outputs` for weights that are made smaller.
      rule: as in `compress`: `(path, weight) -> bool`, which weights are measured.
      warmups: calls of each operation that are not counted.
      repeats: calls that are.

    Returns:
      `{path: {fraction: seconds}}`, for `prune.by_latency`.

    Raises:
      ValueError: a batch without values or examples, a fraction outside (0, 1], a rule that selects nothing, a weight
        that the pattern or the form does not fit, or whose operation cannot be run alone (inside `scan`, `cond` or
        `while`), fewer than 1 warm-up or 2 repeats.
    """
    _check_batch(x)
    kept = tuple(kept)
    for fraction in kept:
        checks.positive("kept", fraction)
        checks.in_range("kept", fraction, 0.0, 1.0)
    layouts = select(apply_fn, params, x, None, rule)[0].layouts
    weights, choices = tree.pick(params, layouts), (pattern or block(), form or _packed, set(map(float, kept)))
    calls: list[tuple[Path, float, Callable[[], Array]]] = []
    for path, found in operations(apply_fn, params, x, layouts).items():
        try:
            shown = _shown(weights[path], layouts[path], *choices)
            calls += [(path, fraction, call) for fraction, call in _runs(found, shown)]
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from error
    times = latency({str(i): call for i, (*_, call) in enumerate(calls)}, warmups=warmups, repeats=repeats)
    table: dict[Path, dict[float, float]] = {path: {} for path in layouts}
    for (path, fraction, _), time in zip(calls, times.values()):
        table[path][fraction] = table[path].get(fraction, 0.0) + time.median
    return table


def _check_batch(x: Any) -> None:
    arrays = jax.tree.leaves(x)
    if not arrays or any(isinstance(a, jax.ShapeDtypeStruct) or 0 in jnp.shape(a)[:1] for a in arrays):
        raise ValueError(f"x must be one batch of inputs with values, one example at least; got {x!r}.")


def _packed(weight: Any, mask: Array, layout: Layout) -> Any:
    return pack(Masked(weight, mask))


def _shown(weight: Any, layout: Layout, pattern: Pattern, form: Form, fractions: set[float]) -> dict[float, Any]:
    """The weight as it stands, and what takes its place at every smaller fraction that the pattern reaches."""
    found = {1.0: weight}
    score = jnp.abs(dense(weight))
    unit = getattr(pattern, "unit", None)
    least = 1 if unit is None else unit(score.shape, layout)
    for fraction in sorted(fractions - {1.0}, reverse=True):
        mask = pattern(score, max(round(fraction * score.size), least), layout)
        reached = int(jnp.sum(mask)) / score.size
        if reached not in found:
            found[reached] = form(weight, mask, layout)
    return found


def _runs(found: tuple[Operation, ...], weights: dict[float, Any]) -> Iterator[tuple[float, Callable[[], Array]]]:
    """Every operation with every weight."""
    for operation in found:
        run = compressed(operation.apply)
        for fraction, weight in weights.items():
            jax.eval_shape(run, weight, operation.x)  # what does not fit says so before anything is timed
            yield fraction, functools.partial(run, weight, operation.x)
