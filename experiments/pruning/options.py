"""What the config files of this study share."""

from typing import Any

from ml_collections import ConfigDict

from experiments.common import configs
from spartax import attacks
from spartax.records import Attack

SPARSITIES = (0.5, 0.7, 0.8, 0.9, 0.95)
KEPT, NEW = "trained", "re-estimated"  # batch statistics


def base(**values: Any) -> ConfigDict:
    """Accuracy at one radius; latency is the subject of other studies."""
    return configs.base(out="results/pruning", timed=False, curve=(), **values)


def judges(config: ConfigDict, eps: float) -> dict[str, Attack]:
    """PGD beside AutoAttack; no attack where that is not asked for."""
    return {f"PGD-{config.pgd_steps}": attacks.pgd(eps, steps=config.pgd_steps)} if config.attacked else {}
