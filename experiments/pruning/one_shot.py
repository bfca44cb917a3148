"""Every criterion with every allocation at every sparsity, without any training afterwards."""

import inspect
import time
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import jax

from experiments.pruning.options import Options
from experiments.pruning.rows import row
from experiments.pruning.subject import Subject, evidence
from spartax import attacks, catalog, measure, prune, train
from spartax.arrays import dense
from spartax.records import Criterion, Evidence, Params, Transform, Weights

ALLOCATIONS = ("uniform", "pooled", "erk", "lamp", "rate_distortion")
KEPT, NEW = "as trained", "re-estimated"  # batch statistics
QUICK = ("magnitude", "random")


class Cell(NamedTuple):
    """One pruned network."""

    criterion: str
    allocation: str
    sparsity: float
    seed: int

    def name(self, statistics: str) -> str:
        """As recorded."""
        return f"{self.criterion}, {self.allocation}, {self.sparsity:.0%}, statistics {statistics}"


def criteria(options: Options, eps: float) -> tuple[dict[str, Criterion], list[str]]:
    """The criteria by name, with their default options, and a line for each that cannot do without options."""
    special = {"mad": lambda: prune.mad(attacks.pgd(eps, steps=10))}
    asked = options.methods or (QUICK if options.quick else catalog.names(prune.criteria))
    factories = {name: special.get(name) or catalog.load(prune.criteria, name) for name in asked}
    missing = {name: _required(make) for name, make in factories.items()}
    unable = [f"{name}: needs {', '.join(needs)}, which has no default" for name, needs in missing.items() if needs]
    return {name: make() for name, make in factories.items() if not missing[name]}, unable


def _required(factory: Any) -> list[str]:
    parameters = inspect.signature(factory).parameters.values()
    return [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]


def cells(options: Options, known: dict[str, Criterion]) -> list[Cell]:
    """The whole grid; what does not draw has one seed."""
    allocations = options.allocations or (ALLOCATIONS[:2] if options.quick else ALLOCATIONS)
    return [
        Cell(name, allocation, sparsity, seed)
        for name, criterion in known.items()
        for seed in (options.seeds if name == "random" or "key" in criterion.needs else options.seeds[:1])
        for allocation in allocations
        for sparsity in options.sparsities
    ]


def run(subject: Subject, options: Options, done: Collection[tuple[str, int]]) -> Iterator[measure.Record | str | int]:
    """What is not done yet: how many cells there are, records, and a line for every criterion or cell that failed."""
    known, unable = criteria(options, subject.eps)
    yield from unable
    todo = [cell for cell in cells(options, known) if not _finished(cell, subject, done)]
    yield len(todo)
    if ("dense", 0) not in done:
        yield row(subject, subject.variables, "dense", {}, 0, time.perf_counter())
    if not todo:
        return
    known = {name: _remembered(criterion) for name, criterion in known.items()}
    transforms = {cell: _transform(cell, known[cell.criterion]) for cell in todo}
    needs = frozenset().union(*(t.needs for t in transforms.values()))
    facts = evidence(subject, needs, jax.random.key(options.seeds[0]))
    for cell, transform in transforms.items():
        start, given = time.perf_counter(), facts._replace(key=jax.random.key(cell.seed))
        try:
            variables = _pruned(subject.variables, transform, given)
        except ValueError as error:
            yield f"{cell.name(KEPT)}: {error}"
            continue
        for statistics in _statistics(subject):
            refreshed = variables if statistics == KEPT else _reestimated(subject, variables)
            about = {**cell._asdict(), "statistics": statistics}
            del about["seed"]
            yield row(subject, refreshed, cell.name(statistics), about, cell.seed, start)


def _statistics(subject: Subject) -> tuple[str, ...]:
    return (KEPT,) if subject.train_apply is None else (KEPT, NEW)


def _finished(cell: Cell, subject: Subject, done: Collection[tuple[str, int]]) -> bool:
    return all((cell.name(statistics), cell.seed) in done for statistics in _statistics(subject))


def _transform(cell: Cell, criterion: Criterion) -> Transform:
    return prune.prune(criterion, cell.sparsity, catalog.load(prune.allocations, cell.allocation)())


def _pruned(variables: Params, transform: Transform, given: Evidence) -> Params:
    params, state = transform.init(variables, given)
    return transform.update(params, state, given)[0]


def _reestimated(subject: Subject, variables: Params) -> Params:
    assert subject.train_apply is not None
    plain = train.reestimate_batch_stats(subject.train_apply, jax.jit(dense)(variables), subject.batches)
    return {**variables, "batch_stats": plain["batch_stats"]}


def _remembered(criterion: Criterion) -> Criterion:
    """The same criterion, which looks at the dense weights of one seed once for all allocations and sparsities."""
    found: dict[Any, Any] = {}

    def once(function: Any, weights: Weights, given: Evidence) -> Any:
        seed = jax.random.key_data(catalog.need("key", given)).tobytes()
        if seed not in found:
            found.clear()
            found[seed] = function(weights, given)
        return found[seed]

    solve = criterion.solve
    return criterion._replace(
        score=lambda weights, given: once(criterion.score, weights, given),
        solve=None if solve is None else lambda weights, given: once(solve, weights, given),
    )
