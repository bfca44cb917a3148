"""Question: what is left between the factorizations after a short fine-tuning of the factors?

The factors of `factorized.py`, trained for `tune_epochs`: under attack, or without where `eps` is 0.
Command: python -m experiments.run --config=experiments/lowrank/tuned.py --config.ratio=1/4
Expected: most of the loss comes back, and the order of the factorizations stays; README.md has the numbers.
"""

from ml_collections import ConfigDict

from experiments.lowrank import factorized

build, judges = factorized.build, factorized.judges


def get_config() -> ConfigDict:
    config = factorized.get_config()
    config.update({"method": "factorized and tuned", "tune_epochs": 2})
    return config


def label(config: ConfigDict) -> str:
    return f"{factorized.label(config)}, tuned"
