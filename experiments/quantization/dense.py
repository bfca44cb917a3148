"""Question: how accurate is the network before quantization, clean and under attack?

Command: python -m experiments.run --config=experiments/quantization/dense.py
Expected: the numbers that the network was published with, within the interval of the images taken.
"""

from ml_collections import ConfigDict

from experiments.common import dense
from experiments.quantization import options

label, build = dense.label, dense.build


def get_config() -> ConfigDict:
    return options.base(method="dense", role="dense")
