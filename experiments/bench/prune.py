"""Pruning: masks of a tree of 100 M weights, time and memory, and what each criterion costs in passes over its data."""

import functools
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import spartax as sx
from experiments.bench.row import Row, compare
from spartax import attacks, catalog, measure, models, prune, tree
from spartax.compress import select
from spartax.records import Criterion, Evidence, Objective, Weights

WIDTH, DEPTH = 768, 14  # 99 M weights in 56 matrices, as in the blocks of a transformer
ATTACK = attacks.pgd(8 / 255, steps=10)


def rows(quick: bool) -> list[Row]:
    return [_masks(quick), *_criteria(quick)]


def _masks(quick: bool) -> Row:
    """In a process of its own, whose memory is nobody else's."""
    call = [sys.executable, "-m", __spec__.name, *(["--quick"] if quick else [])]
    found = json.loads(subprocess.run(call, stdout=subprocess.PIPE, check=True, text=True).stdout)
    ours, numpys = (measure.Latency(*found[name]) for name in ("time", "base"))
    note = f"{found['first']:.2f} s with compilation, peak memory {found['memory']:.2f}x the weights; target: 3 s, 3x"
    return Row(
        f"{found['millions']:.3g} M weights, one ranking: compress", "numpy partition and compare", ours, numpys, note
    )


def masks(quick: bool) -> dict[str, Any]:
    """Time of masks by magnitude under one ranking, and the most memory that was held, the weights included."""
    before = _peak()
    params = jax.block_until_ready(_tree(16 if quick else WIDTH, 1 if quick else DEPTH))
    size = sum(w.size for w in params.values())
    transform = prune.prune(prune.magnitude(), 0.9, prune.pooled(0))
    run = lambda: sx.compress(_unused, params, transform, rule=lambda path, w: True).params  # noqa: E731
    start = time.perf_counter()
    found = jax.block_until_ready(run())
    first = time.perf_counter() - start
    memory = (_peak() - before) / (4 * size)
    plain = [np.asarray(w) for w in params.values()]
    exact = [np.asarray(leaf.mask) for leaf in found.values()]
    assert sum(np.count_nonzero(mask) for mask in exact) == round(0.1 * size)  # numpy keeps ties of the last one too
    assert not any(np.any(ours & ~theirs) for ours, theirs in zip(exact, _by_numpy(plain)))
    del found
    times = measure.latency({"time": run, "base": lambda: _by_numpy(plain)}, warmups=1, repeats=3)
    return {"millions": size / 1e6, "first": first, "memory": memory, **times}


def _unused(params: Any, x: Any) -> Any:
    raise AssertionError("a rule names the weights, so the program is not read")


def _tree(width: int, depth: int) -> Weights:
    shapes = [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)] * depth
    rng = np.random.default_rng(0)
    return {f"w{i:02}": jnp.asarray(rng.standard_normal(s, np.float32)) for i, s in enumerate(shapes)}


def _by_numpy(weights: list[np.ndarray]) -> list[np.ndarray]:
    sizes = [np.abs(w) for w in weights]
    every = np.concatenate([s.ravel() for s in sizes])
    place = every.size - round(0.1 * every.size)
    every.partition(place)
    return [s >= every[place] for s in sizes]


def _peak() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _criteria(quick: bool) -> list[Row]:
    """Scores, and the moved weights where a criterion moves them, against a gradient over the same batches."""
    logits, weights, batches = _subject(quick)
    objective = Objective(logits, batches, _cross_entropy)
    given = select(logits, weights, batches[0][0], jax.random.key(0), None)[0]._replace(objective=objective)
    gradient = jax.jit(jax.value_and_grad(lambda w, x, y: jnp.mean(_cross_entropy(logits(w, x), y))))
    name = f"{'MLP' if quick else 'ResNet-8'}, {len(batches)} x {len(batches[0][1])} images"
    found = []
    for method, run in _runs(weights, given, objective).items():
        pair = {method: run, "forward and backward": lambda: [gradient(weights, x, y) for x, y in batches]}
        row = compare(name, pair, repeats=2 if quick else 5, warmups=1)
        found.append(row._replace(note=f"{row.time.median / row.base.median:.3g} passes each way"))
    return found


def _runs(weights: Weights, given: Evidence, objective: Objective) -> dict[str, Callable[[], Any]]:
    options = {"mad": {"attack": ATTACK}, "woodfisher": {"block": 50}}
    made = {n: catalog.load(prune.criteria, n)(**options.get(n, {})) for n in catalog.names(prune.criteria)}
    return {n: functools.partial(_scored, c, weights, given, _statistics(c, objective)) for n, c in made.items()}


def _statistics(criterion: Criterion, objective: Objective) -> Callable[[Weights], dict[str, Any]]:
    """What `spartax.collect` measures for a criterion, compiled once."""
    needs = [need for need in ("moments", "means", "magnitudes", "signals") if need in criterion.needs]
    if not needs:
        return lambda weights: {}
    return jax.jit(lambda weights: sx.collect(objective.logits, weights, objective.batches, needs))


def _scored(criterion: Criterion, weights: Weights, given: Evidence, statistics: Callable) -> Any:
    evidence = given._replace(**statistics(weights))
    if criterion.solve is None:
        return criterion.score(weights, evidence)
    _, finish = criterion.solve(weights, evidence)
    return [finish(path, w.size // 10, prune.unstructured()) for path, w in weights.items()]


def _subject(quick: bool) -> tuple[Callable, Weights, tuple]:
    """`(weights, x) -> logits`, the weights, and labelled batches."""
    count, size, side = (2, 4, 4) if quick else (2, 64, 32)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.random((count, size, side, side, 3), np.float32))
    y = jnp.asarray(rng.integers(0, 10, (count, size)), jnp.int32)
    module = models.MLP((8,)) if quick else models.resnet8()
    variables = jax.jit(module.init)(jax.random.key(0), x[0, :1])
    apply = models.eval_apply(module)
    chosen = {p: w for p, w in tree.weights(variables).items() if w.ndim > 1}
    return jax.jit(lambda w, x: apply(tree.replace(variables, w), x)), chosen, tuple(zip(x, y))


_cross_entropy = optax.losses.softmax_cross_entropy_with_integer_labels


if __name__ == "__main__":
    print(json.dumps(masks("--quick" in sys.argv)))
