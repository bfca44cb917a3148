"""Question: what is left where weights are trained as products of two that decay, and the smallest products go?

Paper: Li et al., Learning Adversarially Robust Sparse Networks via Weight Reparameterization (AAAI 2023).
Command: python -m experiments.run --config=experiments/robust_training/recipes/twin_rep.py --config.sparsity=0.95
Time: about 3 minutes on two busy CPU cores, once the dense network is trained.
Expected: with seed 0 clean 86.0 %, worst of the attacks 53.3 % (dense: 97.3 and 82.4 %), 13,203 bytes.
"""

import functools

import optax
from ml_collections import ConfigDict

from experiments.common.subject import Subject, tuned
from experiments.robust_training.recipes import options
from spartax import prune
from spartax.records import Params

QUICK = options.quick("twin_epochs")


def get_config() -> ConfigDict:
    return options.base(method="Twin-Rep", sparsity=0.95, twin_epochs=10, twin_rate=2e-3, decay=2.0)


def label(config: ConfigDict) -> str:
    return f"{config.method}, {config.sparsity:.0%}"


def compressed(config: ConfigDict, subject: Subject) -> Params:
    """One ranking over all layers, as in the paper."""
    twins = (config.twin_epochs, config.seed, config.twin_rate, prune.twin_rep())
    decayed = functools.partial(optax.adamw, weight_decay=config.decay)
    products = prune.finish(tuned(subject, subject.variables, *twins, optimizer=decayed))
    pruning = prune.prune(prune.magnitude(), config.sparsity)
    return tuned(subject, products, config.tune_epochs, config.seed, config.tune_rate, pruning)
