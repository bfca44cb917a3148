"""One-shot pruning, where runs of one process share evidence, scores and curves: most cells then take seconds."""

import functools
from typing import NamedTuple

import jax
from ml_collections import ConfigDict, FrozenConfigDict

from experiments.common import compressing, measuring, networks
from experiments.common.subject import Subject
from spartax import attacks, catalog, checks, program, prune
from spartax.compress import measure, select
from spartax.records import Allocation, Criterion, Evidence, Params, Transform, Weights

NEEDS = frozenset({"objective", "moments"})  # of all criteria and allocations, besides key and originals
CELL = ("allocation", "sparsity", "statistics")  # what runs differ in that share scores
SCORING = (*CELL, "criterion", "seed", "role")  # what they differ in that share evidence
SWAP = "swap"  # a transform, beside the criteria
ZEROS = "magnitude"  # how mad ranks weights of no saliency
BLOCK = 128  # of woodfisher, whose inverse Fisher takes 1.6 GB for ResNet-20 with the default 1,500


class Scores(NamedTuple):
    """What a criterion says about the dense network.

    Attributes:
      subject: the network.
      weights: of it, those that are pruned.
      evidence: with the key of the seed.
      criterion: the criterion, which says it again at once.
    """

    subject: Subject
    weights: Weights
    evidence: Evidence
    criterion: Criterion


def pruned(config: ConfigDict) -> Params:
    """The network under the masks of a criterion and an allocation, with its own batch statistics.

    Raises:
      ValueError: an unknown name, or a combination that cannot be computed.
    """
    return _pruned(_without(config, ("statistics",)))


def _without(config: ConfigDict, names: tuple[str, ...]) -> FrozenConfigDict:
    return FrozenConfigDict({name: value for name, value in config.items() if name not in names})


@functools.lru_cache(maxsize=1)
def _pruned(config: FrozenConfigDict) -> Params:
    subject, evidence, transform = _swap(config) if config.criterion == SWAP else _ranked(config)
    params, state = transform.init(subject.variables, evidence)
    return transform.update(params, state, evidence)[0]


def _ranked(config: FrozenConfigDict) -> tuple[Subject, Evidence, Transform]:
    found = _scores(_without(config, CELL))
    return found.subject, found.evidence, prune.prune(found.criterion, config.sparsity, _allocation(config))


def _swap(config: FrozenConfigDict) -> tuple[Subject, Evidence, Transform]:
    """Which ranks all weights together by itself, anew in every round: it has no scores to share."""
    checks.one_of("--config.allocation with swap", config.allocation, ("pooled",))
    return *_evidence(_without(config, SCORING)), prune.swap(config.sparsity)


def _allocation(config: FrozenConfigDict) -> Allocation:
    allocation = catalog.load(prune.allocations, config.allocation)()
    if config.allocation != "rate_distortion":
        return allocation
    curves = _curves(_without(config, CELL))
    return lambda scores, sparsity, evidence: allocation.chosen(curves, scores, sparsity)


@functools.lru_cache(maxsize=1)
def _curves(config: FrozenConfigDict) -> dict:
    """Measured on the first `curve_images` of the evidence."""
    found = _scores(config)
    scores, objective = found.criterion.score(found.weights, found.evidence), found.evidence.objective
    assert objective is not None
    few = objective.batches[: -(-config.curve_images // measuring.BATCH)]
    given = found.evidence._replace(objective=objective._replace(batches=few))
    return prune.rate_distortion().curves(scores, given)


@functools.lru_cache(maxsize=1)
def _scores(config: FrozenConfigDict) -> Scores:
    subject, evidence = _evidence(_without(config, SCORING))
    evidence = evidence._replace(key=jax.random.key(config.seed))
    weights = dict(catalog.need("originals", evidence))
    return Scores(subject, weights, evidence, _said(criterion(config.criterion, subject.eps), weights, evidence))


@functools.lru_cache(maxsize=1)
def _evidence(config: FrozenConfigDict) -> tuple[Subject, Evidence]:
    subject = networks.load(ConfigDict({**config, "seed": 0}))
    batches = tuple(compressing.batches(config, subject))
    evidence, _ = select(subject.apply_fn, subject.variables, batches[0][0], None, None)
    apply, loss = program.compressed(subject.apply_fn), attacks.losses.cross_entropy
    facts = measure(NEEDS, apply, subject.variables, evidence.layouts, batches, loss)
    return subject, evidence._replace(**facts)


def criterion(name: str, eps: float, zero_saliency: str = ZEROS) -> Criterion:
    """With its default options, where it has them; `zero_saliency` is that of `prune.mad`."""
    special = {
        "mad": lambda: prune.mad(attacks.pgd(eps, steps=10), zero_saliency=zero_saliency),
        "woodfisher": lambda: prune.woodfisher(BLOCK),
    }
    return (special.get(name) or catalog.load(prune.criteria, name))()


def _said(criterion: Criterion, weights: Weights, evidence: Evidence) -> Criterion:
    """The criterion with what it says about the dense network worked out."""
    if criterion.solve is None:
        scores = criterion.score(weights, evidence)
        return criterion._replace(score=lambda *_: scores)
    found = criterion.solve(weights, evidence)
    return criterion._replace(score=lambda *_: found[0], solve=lambda *_: found)
