"""Question: how few bits may a weight have, and which rounding keeps most accuracy under attack?

Papers: nearest, one symmetric scale for each output channel (arXiv 2106.08295); GPTQ (2210.17323); HQQ
(https://mobiusml.github.io/hqq_blog), zero points in float16; AdaRound (2004.10568). `rounding` is one of "nearest",
"gptq", "hqq", "adaround".
Command: python -m experiments.run --config=experiments/quantization/weights.py --config.bits=3 --config.rounding=hqq
Expected: no difference between them at eight bits; README.md has the numbers.
"""

from ml_collections import ConfigDict

from experiments.quantization import options
from spartax import quantize
from spartax.records import Transform


def get_config() -> ConfigDict:
    return options.base(method="weights", bits=4, rounding="nearest")


def label(config: ConfigDict) -> str:
    return f"W{config.bits}, {config.rounding}"


def build(config: ConfigDict) -> tuple[Transform, ...]:
    return (quantize.quantize(options.grid(config.bits, config.rounding), **options.plugs(config.rounding)),)
