"""Question: what is left when weights are removed by what their inputs say, and the others moved to make up for it?

Paper: SparseGPT (arXiv 2301.00774); one ranking over all layers.
Command: python -m experiments.run --config=experiments/benchmark/sparsegpt.py --config.sparsity=0.7
Time: about 50 s on two busy CPU cores, once the dense network is trained.
Expected: with seed 0 clean 96.4 %, worst of the attacks 69.8 % (magnitude: 83.8 and 46.2 %), 53,162 bytes.
"""

from ml_collections import ConfigDict

from experiments.common import configs
from spartax import prune
from spartax.records import Transform


def get_config() -> ConfigDict:
    return configs.base(method="sparsegpt", sparsity=0.9)


def label(config: ConfigDict) -> str:
    return f"{config.method}, {config.sparsity:.0%}"


def build(config: ConfigDict) -> tuple[Transform, ...]:
    return (prune.prune(prune.sparsegpt(), config.sparsity, prune.pooled()),)
