"""Question: at the bytes of one width for all weights, does another width for each keep more accuracy under attack?

Papers: `sensitivity` says what a weight loses on a grid: "hessian_trace" (HAWQ-V2, arXiv 1911.03852), "output_kl"
(ZeroQ, 2001.00281), "fisher" (SqueezeLLM, 2306.07629), and CPTQuant's (S043) "correlation", "pruning_sensitivity" and
"taylor".
The budget is what all weights take at `bits`, scales included; the sum of losses under it is exactly the least.
Command: python -m experiments.run --config=experiments/quantization/mixed.py --config.bits=3 \
    --config.sensitivity=output_kl --config.network=cnn_a --config.data_dir=DIR --config.calibration=512 \
    --config.training=512 --config.restarts=1
Time: 96 s on two CPU cores.
Expected: clean 24.6 %, worst 16.4 % (dense: 66.8 and 54.3 %), 61,740 bytes: no gain over three bits for all weights
(30.9 and 18.0 %) on CNN-A, where one of four weights holds most entries, nor on ResNet-8.
"""

from ml_collections import ConfigDict

from experiments.quantization import options
from spartax import catalog, checks, quantize
from spartax.records import Transform

SENSITIVITIES = ("hessian_trace", "output_kl", "fisher", "correlation", "pruning_sensitivity", "taylor")
BITS = (2, 3, 4, 6, 8)


def get_config() -> ConfigDict:
    return options.base(method="mixed", bits=4, sensitivity="hessian_trace", rounding="nearest")


def label(config: ConfigDict) -> str:
    return f"mixed as W{config.bits}, {config.sensitivity}, {config.rounding}"


def build(config: ConfigDict) -> tuple[Transform, ...]:
    checks.one_of("--config.sensitivity", config.sensitivity, SENSITIVITIES)
    checks.one_of("--config.bits", config.bits, BITS)
    plugs, sensitivity = options.plugs(config.rounding), catalog.load(quantize.bits, config.sensitivity)()
    grids = {bits: options.grid(bits, config.rounding) for bits in BITS}
    return (quantize.mixed(list(grids.values()), sensitivity, budget=grids[config.bits], **plugs),)
