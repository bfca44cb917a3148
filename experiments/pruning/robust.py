"""Robust networks: pruned, attacked, fine-tuned on attacked images for a while, attacked again."""

import time
from collections.abc import Callable, Collection, Iterator
from typing import Any

import jax
import numpy as np
import optax

import spartax as sx
from experiments.pruning.options import Options
from experiments.pruning.rows import judged, row
from experiments.pruning.subject import BATCH, Subject, cross_entropy
from spartax import attacks, data, measure, prune, train
from spartax.records import Params, Transform

METHODS = ("magnitude", "random", "learnt_scores", "mad", "swap")
QUICK = ("magnitude", "learnt_scores")
RATE, MOMENTUM, ATTACK_STEPS = 0.01, 0.9, 7
SCORE_RATE = 0.1
BEFORE, AFTER = "one-shot", "fine-tuned"


def run(subject: Subject, options: Options, done: Collection[tuple[str, int]]) -> Iterator[measure.Record | str | int]:
    """What is not done yet: first how many networks there are, then records, and a line for each that failed."""
    names = options.methods or (QUICK if options.quick else METHODS)
    grid = [
        (n, s, seed)
        for n in names
        for s in options.sparsities
        for seed in options.seeds[: 1 if options.quick else None]
    ]
    stages = lambda name, sparsity: [f"{name}, {sparsity:.0%}, {stage}" for stage in (BEFORE, AFTER)]  # noqa: E731
    todo = [(n, s, seed) for n, s, seed in grid if any((stage, seed) not in done for stage in stages(n, s))]
    yield len(todo)
    if ("dense", 0) not in done:
        yield _attacked(subject, options, subject.variables, "dense", {}, 0, time.perf_counter())
    for name, sparsity, seed in todo:
        start, about = time.perf_counter(), {"method": name, "sparsity": sparsity, "steps": options.steps}
        try:
            variables = pruned(name, subject, options, sparsity, seed)
        except ValueError as error:
            yield f"{name}, {sparsity:.0%}: {error}"
            continue
        first, last = stages(name, sparsity)
        if (first, seed) not in done:
            yield _attacked(subject, options, variables, first, about, seed, start)
        tuned = _trained(subject, options, variables, seed, RATE)
        yield _attacked(subject, options, tuned, last, about, seed, start)


def pruned(name: str, subject: Subject, options: Options, sparsity: float, seed: int) -> Params:
    """The network under the masks of one method."""
    step = _transforms(subject.eps).get(name, lambda s: prune.prune(getattr(prune, name)(), s))(sparsity)
    key = jax.random.key(seed)
    batches = {"batches": subject.batches, "loss": cross_entropy, "key": key}
    variables = sx.compress(subject.apply, subject.variables, step, **batches).params
    if name != "learnt_scores":
        return variables
    only = lambda path, array: path.endswith("/scores")  # noqa: E731
    return prune.finish(_trained(subject, options, variables, seed, SCORE_RATE, only))


def _transforms(eps: float) -> dict[str, Callable[[float], Transform]]:
    """Methods that are no criterion, or whose criterion has options or another allocation; others go by name."""
    pgd = attacks.pgd(eps, steps=10)
    return {
        "random": lambda s: prune.prune(prune.random(), s, prune.erk()),
        "learnt_scores": lambda s: prune.learnt_scores(s),
        "mad": lambda s: prune.prune(prune.mad(pgd, zero_saliency="magnitude"), s),
        "swap": lambda s: prune.swap(s),
    }


def _trained(
    subject: Subject,
    options: Options,
    variables: Params,
    seed: int,
    rate: float,
    rule: Callable[[str, Any], bool] | None = None,
) -> Params:
    """The network after some steps of adversarial training; masks stay as they are."""
    tx = optax.sgd(optax.cosine_decay_schedule(rate, options.steps), MOMENTUM, nesterov=True)
    loss = train.pgd_at(attacks.pgd(subject.eps, steps=ATTACK_STEPS))
    train_apply = None if subject.train_apply is None else sx.compressed(subject.train_apply)
    step = train.make_step(loss, tx, sx.compressed(subject.apply), train_apply)
    size = min(BATCH, len(subject.train.y))
    epochs = -(-options.steps // (len(subject.train.y) // size))
    batches = data.batches(subject.train, size, jax.random.key(seed), epochs=epochs, drop_last=True)
    some = (batch for batch, _ in zip(batches, range(options.steps)))
    state = train.init_state(variables, tx, rule)
    return train.fit(step, state, some, jax.random.key(seed), total=options.steps, progress=False)[0].variables


def _attacked(
    subject: Subject, options: Options, variables: Params, method: str, about: dict[str, Any], seed: int, start: float
) -> measure.Record:
    """The row after PGD-20 and AutoAttack."""
    network, test, key = judged(subject, variables), subject.test, jax.random.key(seed)
    pgd = {"PGD-20": attacks.pgd(subject.eps, steps=2 if options.quick else 20)}
    robust = dict(measure.robustness(pgd, network, test.x, test.y, key, BATCH).robust)
    warnings: tuple[str, ...] = ()
    if not options.quick:
        found = attacks.autoattack(subject.eps, verbose=False)(key, network, test.x, test.y)
        robust["AutoAttack"] = np.asarray(found.robust)
        warnings = tuple(str(w) for w in found.warnings)
    return row(subject, variables, method, about, seed, start, robust, warnings)
