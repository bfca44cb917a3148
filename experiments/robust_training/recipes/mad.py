"""Question: what is left where the weights go whose masks do least harm on attacked images, to second order (MAD)?

Paper: Lee, Kim and Ro, Masking Adversarial Damage (arXiv 2204.02738).
Command: python -m experiments.run --config=experiments/robust_training/recipes/mad.py --config.sparsity=0.95
Time: about 2 minutes on two busy CPU cores, once the dense network is trained.
Expected: with seed 0 clean 20.6 %, worst of the attacks 13.5 % (dense: 97.3 and 82.4 %), 13,547 bytes.
"""

from ml_collections import ConfigDict

from experiments.common import compressing
from experiments.common.subject import Subject
from experiments.robust_training.recipes import options
from spartax import attacks, prune
from spartax.records import Params

QUICK = options.quick()


def get_config() -> ConfigDict:
    return options.base(method="MAD", sparsity=0.95, calibration=1024)


def label(config: ConfigDict) -> str:
    return f"{config.method}, {config.sparsity:.0%}"


def compressed(config: ConfigDict, subject: Subject) -> Params:
    """One ranking over all layers; weights whose mask the search leaves alone are ranked by magnitude."""
    criterion = prune.mad(attacks.pgd(subject.eps, steps=10), zero_saliency="magnitude")
    pruned = compressing.compressed(config, subject, prune.prune(criterion, config.sparsity))
    return compressing.repaired(config, subject, pruned)
