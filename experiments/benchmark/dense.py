"""Question: how accurate is the network before compression, clean and under attack?

Paper: Madry et al., "Towards deep learning models resistant to adversarial attacks" (arXiv 1706.06083).
Command: python -m experiments.run --config=experiments/benchmark/dense.py
Time: about half a minute on two CPU cores, with the training of the network once.
Expected: not measured yet.
"""

from ml_collections import ConfigDict

from experiments.common import configs


def get_config() -> ConfigDict:
    return configs.base(method="dense", role="dense")


def label(config: ConfigDict) -> str:
    return config.method


def build(config: ConfigDict) -> tuple:
    del config
    return ()
