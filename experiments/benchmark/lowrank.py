"""Question: what does low rank keep under attack at a given share of the bytes, in one shot?

Paper: SVD-LLM (arXiv 2403.07378): factors that are best for the inputs the layers see; ranks by measured distortion.
Command: python -m experiments.run --config=experiments/benchmark/lowrank.py --config.ratio=0.5
Time: about 11 s on two CPU cores, once the dense network is trained.
Expected: with seed 0 clean 97.0 %, worst of the attacks 78.3 %, 77,051 bytes.
"""

from ml_collections import ConfigDict

from experiments.common import configs
from spartax import lowrank
from spartax.records import Transform


def get_config() -> ConfigDict:
    return configs.base(method="low rank, whitened", ratio=0.5)


def label(config: ConfigDict) -> str:
    return f"{config.method}, {config.ratio:.0%} of bytes"


def build(config: ConfigDict) -> tuple[Transform, ...]:
    return (lowrank.factorize(lowrank.whitened(), lowrank.byte_budget(config.ratio)),)
