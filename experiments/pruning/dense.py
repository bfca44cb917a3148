"""Question: how accurate is the network before pruning?

Command: python -m experiments.run --config=experiments/pruning/dense.py
Expected: the numbers that the network was published with, within the interval of the images taken.
"""

from ml_collections import ConfigDict

from experiments.common import dense
from experiments.pruning import options

label, build, judges = dense.label, dense.build, options.judges


def get_config() -> ConfigDict:
    return options.base(method="dense", role="dense", attacked=False)
