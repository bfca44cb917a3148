"""Question: what is left where adversarial training pulls towards sparse weights, harder and harder, before they go?

Paper: Ye et al., Adversarial Robustness vs. Model Compression, or Both? (arXiv 1903.12561).
Command: python -m experiments.run --config=experiments/robust_training/recipes/radmm.py --config.sparsity=0.95
Time: about 8 minutes on two busy CPU cores, once the dense network is trained.
Expected: with seed 0 clean 37.6 %, worst of the attacks 23.6 % (dense: 97.3 and 82.4 %), 13,614 bytes.
"""

from ml_collections import ConfigDict

from experiments.common.subject import Subject, pgd_training, steps_of, tuned
from experiments.robust_training.recipes import options
from spartax import prune, train
from spartax.records import Params

QUICK = options.quick("pull_epochs")


def get_config() -> ConfigDict:
    pulls = {"rhos": (0.001, 0.01, 0.1), "pull_epochs": 4, "pull_rate": 1e-3}
    return options.base(method="RADMM", sparsity=0.95, **pulls)


def label(config: ConfigDict) -> str:
    return f"{config.method}, {config.sparsity:.0%}"


def compressed(config: ConfigDict, subject: Subject) -> Params:
    """Uniform sparsity, as in the paper; weights are projected once an epoch.

    Each rho begins with `U = 0`: the U of the one before is in units of 1/rho, a tenth of it here.
    """
    assert subject.train is not None
    params, adversarial = subject.variables, pgd_training(subject.eps)
    stage = (config.pull_epochs, config.seed, config.pull_rate)
    pulled = prune.radmm(config.sparsity, every=steps_of(subject.train, 1))
    for rho in config.rhos:
        params = prune.finish(tuned(subject, params, *stage, pulled, loss=train.radmm(adversarial, rho)))
    pruning = prune.prune(prune.magnitude(), config.sparsity, prune.uniform())
    return tuned(subject, params, config.tune_epochs, config.seed, config.tune_rate, pruning)
