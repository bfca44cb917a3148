"""Question: how few bits may a weight have before accuracy under attack is lost?

Paper: Nagel et al., "A white paper on neural network quantization" (arXiv 2106.08295), section 2: nearest rounding, one
symmetric scale for each output channel.
Command: python -m experiments.run --config=experiments/benchmark/integers.py --config.bits=4
Time: about 11 s on two CPU cores, once the dense network is trained.
Expected: with seed 0 clean 97.5 %, worst of the attacks 81.0 %, 22,990 bytes.
"""

from ml_collections import ConfigDict

from experiments.common import configs
from spartax import quantize
from spartax.records import Transform


def get_config() -> ConfigDict:
    return configs.base(method="integers", bits=4)


def label(config: ConfigDict) -> str:
    return f"int{config.bits}"


def build(config: ConfigDict) -> tuple[Transform, ...]:
    return (quantize.quantize(quantize.integer(bits=config.bits)),)
