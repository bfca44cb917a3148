"""Question: what is left between the factorizations after a short fine-tuning of the factors?

Papers: those of `factorized.py`, whose factors are trained for `tune_epochs`: under attack, or, at `eps` 0, without.
Command: python -m experiments.run --config=experiments/lowrank/tuned.py --config.ratio=1/4 \
    --config.network=resnet2b --config.data_dir=DIR --config.autoattack=True --config.examples=200
Time: 56 s on two CPU cores.
Expected: clean 62.5 %, worst 49.0 % (dense: 67.0 and 56.5 %), 108,724 bytes, from 49.0 and 38.0 % before; the SVD comes
to 60.0 and 45.5 %.
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
