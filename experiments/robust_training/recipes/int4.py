"""Robust int4: weights and activations are rounded to four bits throughout a training under attack.

Paper: Esser et al., Learned Step Size Quantization (arXiv 1902.08153), under PGD adversarial training.
Command: python -m experiments.run --config=experiments/robust_training/recipes/int4.py
TIME
"""

from ml_collections import ConfigDict

from experiments.quantization import trained
from experiments.robust_training.recipes import options

QUICK = options.quick()
build, training = trained.build, trained.training


def get_config() -> ConfigDict:
    return options.base(method="int4", bits=4, inputs=4, learnt="lsq", tune_rate=1e-3)


def label(config: ConfigDict) -> str:
    return f"W{config.bits}A{config.inputs}, {config.learnt}"
