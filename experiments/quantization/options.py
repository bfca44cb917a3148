"""What the config files of this study share."""

from typing import Any

from ml_collections import ConfigDict

from experiments.common import configs
from spartax import catalog, quantize
from spartax.quantize.records import Rounding

ROUNDINGS = ("nearest", "gptq", "hqq", "adaround")


def base(**values: Any) -> ConfigDict:
    """Accuracy at one radius; latency is the subject of other studies."""
    return configs.base(out="results/quantization", timed=False, curve=(), **values)


def rounding(name: str) -> Rounding:
    """With the options of its paper."""
    return catalog.load(quantize.roundings, name)()
