"""Measurements of a network: accuracy, robustness, bytes, multiply-adds, time; and the record and report of them."""

from spartax.measure.accuracy import accuracy, correct
from spartax.measure.class_rates import ClassRates, class_rates
from spartax.measure.fewer_outputs import fewer_outputs
from spartax.measure.latency import Latency, latency
from spartax.measure.layer_seconds import layer_seconds
from spartax.measure.macs import Macs, macs
from spartax.measure.page import page
from spartax.measure.plot import plot
from spartax.measure.record import Record, append, chosen, environment, read
from spartax.measure.report import markdown
from spartax.measure.robustness import Robustness, robustness
from spartax.measure.size import Size, sizes, sparsity, summary
from spartax.measure.table import table

__all__ = [
    "ClassRates",
    "Latency",
    "Macs",
    "Record",
    "Robustness",
    "Size",
    "accuracy",
    "append",
    "chosen",
    "class_rates",
    "correct",
    "environment",
    "fewer_outputs",
    "latency",
    "layer_seconds",
    "macs",
    "markdown",
    "page",
    "plot",
    "read",
    "robustness",
    "sizes",
    "sparsity",
    "summary",
    "table",
]
