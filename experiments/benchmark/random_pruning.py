"""Question: what is left when the weights that are removed are drawn? Every criterion must beat this.

Paper: "The Unreasonable Effectiveness of Random Pruning" (arXiv 2202.02643); the ratios of the layers follow ERK.
Command: python -m experiments.run --config=experiments/benchmark/random_pruning.py --config.sparsity=0.9
Time: about 15 s on two CPU cores, once the dense network is trained.
Expected: with seed 0 clean and worst 10.2 %: every image in one class.
"""

from ml_collections import ConfigDict

from experiments.common import configs
from spartax import prune
from spartax.records import Transform


def get_config() -> ConfigDict:
    return configs.base(method="random", role="baseline", sparsity=0.9)


def label(config: ConfigDict) -> str:
    return f"{config.method}, {config.sparsity:.0%}"


def build(config: ConfigDict) -> tuple[Transform, ...]:
    return (prune.prune(prune.random(), config.sparsity, prune.erk()),)
