"""What the config files of this study share."""

from typing import Any

from ml_collections import ConfigDict

import spartax as sx
from experiments.common import configs
from spartax import attacks, catalog, checks, lowrank
from spartax.records import Attack, Ranks, Transform

RATIOS = (1 / 2, 1 / 3, 1 / 4, 1 / 6)  # of the dense bytes
FACTORIZATIONS = ("svd", "activation_weighted", "whitened", "atomic_features", "tucker")
RANKS = ("sensitivity", "byte_budget", "shared_energy")


def base(**values: Any) -> ConfigDict:
    """Accuracy at one radius; latency is the subject of a benchmark."""
    return configs.base(out="results/lowrank", timed=False, curve=(), **values)


def judges(config: ConfigDict, eps: float) -> dict[str, Attack]:
    """PGD beside AutoAttack."""
    return {f"PGD-{config.pgd_steps}": attacks.pgd(eps, steps=config.pgd_steps)}


def factorize(factorization: str, rule: str, ratio: float) -> tuple[Transform, ...]:
    """A factorization at a share of the bytes; Tucker leaves Dense layers and 1 x 1 kernels to the SVD."""
    checks.one_of("--config.factorization", factorization, FACTORIZATIONS)
    checks.one_of("--config.ranks", rule, RANKS)
    # statistics of batch normalization are measured anew, which gives means back where there is no bias
    options = {"centred": True} if factorization == "atomic_features" else {}
    made = catalog.load(lowrank.factorizations, factorization)(**options)
    ranks: Ranks = catalog.load(lowrank.ranks, rule)(ratio)
    if factorization == "tucker":
        made = lowrank.otherwise(made, lowrank.svd())
    # the method is complete with the mean of the outputs in the bias
    rest = (sx.correct_bias(),) if factorization == "atomic_features" else ()
    return (lowrank.factorize(made, ranks), *rest)


def share(ratio: float) -> str:
    """`1/3`."""
    return f"1/{1 / ratio:.3g}"
