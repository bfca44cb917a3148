"""Question: how few bits may a weight have, and which rounding keeps most accuracy under attack?

Papers: nearest, one symmetric scale for each output channel (arXiv 2106.08295); GPTQ (2210.17323); HQQ
(https://mobiusml.github.io/hqq_blog), zero points in float16; AdaRound (2004.10568). `rounding` is one of "nearest",
"gptq", "hqq", "adaround".
Command: python -m experiments.run --config=experiments/quantization/weights.py --config.bits=3 --config.rounding=hqq \
    --config.network=cnn_a --config.data_dir=DIR --config.calibration=512 --config.training=512 --config.restarts=1
Time: 86 s on two CPU cores.
Expected: clean 44.1 %, worst 32.4 % (dense: 66.8 and 54.3 %), 73,500 bytes; GPTQ 46.1 and 20.3 %, and no difference
between roundings at eight bits.
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
