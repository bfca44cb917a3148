"""Quantization = grid (which numbers) x calibration (scale of a block) x rounding (code of an entry).

`mixed` gives each weight a grid of its own, by a sensitivity of `bits/`; `activations` rounds what meets the weights,
in a range that an observer chooses; `equalize`, `smooth` and `awq` move factors between layers first. Every file in
`grids/`, `calibrations/`, `roundings/`, `bits/` and `observers/` is offered here under its own name:
`quantize.absmax()`.
"""

from spartax import catalog
from spartax.program.switch import switch
from spartax.quantize import bits, calibrations, grids, observers, roundings
from spartax.quantize.activations import activations
from spartax.quantize.adapt import adapt
from spartax.quantize.assign_widths import assign_widths
from spartax.quantize.awq import awq
from spartax.quantize.double_rounding import double_rounding
from spartax.quantize.equalize import equalize
from spartax.quantize.hasb import hasb
from spartax.quantize.lsq import lsq
from spartax.quantize.mixed import mixed
from spartax.quantize.pact import pact
from spartax.quantize.qfx import qfx
from spartax.quantize.quantize import quantize
from spartax.quantize.records import Grid
from spartax.quantize.reste import estimating_error, gradient_stability, reste
from spartax.quantize.smooth import smooth

__all__ = [
    "Grid",
    "activations",
    "adapt",
    "assign_widths",
    "awq",
    "bits",
    "calibrations",
    "double_rounding",
    "equalize",
    "estimating_error",
    "gradient_stability",
    "grids",
    "hasb",
    "lsq",
    "mixed",
    "observers",
    "pact",
    "qfx",
    "quantize",
    "reste",
    "roundings",
    "smooth",
    "switch",
]

__getattr__, __dir__ = catalog.exports(__name__, grids, calibrations, observers, roundings, bits)
