"""Question: how much accuracy under attack is left when the smallest weights are removed at once?

Paper: "Is Complexity Required for Neural Network Pruning?" (arXiv 2209.14624). `allocation` is "uniform", the same
sparsity in every layer, or "pooled", one ranking over all of them.
Command: python -m experiments.run --config=experiments/benchmark/magnitude.py --config.sparsity=0.7
Time: about 13 s on two CPU cores, once the dense network is trained.
Expected: with seed 0 clean 83.8 %, worst of the attacks 46.2 % (82.1 % dense), 52,765 bytes.
"""

from ml_collections import ConfigDict

from experiments.common import configs
from spartax import catalog, prune
from spartax.records import Transform


def get_config() -> ConfigDict:
    return configs.base(method="magnitude", role="baseline", allocation="pooled", sparsity=0.9)


def label(config: ConfigDict) -> str:
    return f"{config.method}, {config.allocation}, {config.sparsity:.0%}"


def build(config: ConfigDict) -> tuple[Transform, ...]:
    allocation = catalog.load(prune.allocations, config.allocation)()
    return (prune.prune(prune.magnitude(), config.sparsity, allocation),)
