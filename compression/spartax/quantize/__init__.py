"""Quantization = grid (bits and blocks) x calibration (scale of a block) x rounding (code of an entry).

Every file in `calibrations/` and `roundings/` is offered here under its own name: `quantize.absmax()`.
"""

from spartax import catalog
from spartax.quantize import calibrations, roundings
from spartax.quantize.grids import Grid, integer
from spartax.quantize.quantize import quantize

__all__ = ["Grid", "calibrations", "integer", "quantize", "roundings"]

__getattr__, __dir__ = catalog.exports(__name__, calibrations, roundings)
