"""What the config files of this study share."""

from typing import Any

from ml_collections import ConfigDict

from experiments.common import configs
from spartax import catalog, checks, quantize
from spartax.quantize.records import Grid

ROUNDINGS = ("nearest", "gptq", "hqq", "adaround")


def base(**values: Any) -> ConfigDict:
    """Accuracy at one radius; latency is the subject of other studies."""
    return configs.base(out="results/quantization", timed=False, curve=(), **values)


def grid(bits: int, rounding: str) -> Grid:
    """Symmetric, one scale for each output channel; HQQ's has zero points."""
    if rounding == "hqq":
        return quantize.integer(bits, symmetric=False, scale_dtype="float16", zero_dtype="float16")
    return quantize.integer(bits)


def plugs(rounding: str) -> dict[str, Any]:
    """What `quantize.quantize` takes besides the grid, with the options of its paper.

    Raises:
      ValueError: no such rounding.
    """
    checks.one_of("--config.rounding", rounding, ROUNDINGS)
    if rounding == "hqq":
        return {"calibration": quantize.hqq()}
    return {"rounding": catalog.load(quantize.roundings, rounding)()}
