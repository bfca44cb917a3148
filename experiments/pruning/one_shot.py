"""Question: which criterion, with which allocation over the layers, loses least at once, and is it only statistics?

Papers: those of the criteria and allocations, in their docstrings. `criterion` is a file of `spartax/prune/criteria`,
`allocation` one of `spartax/prune/allocations`; or `criterion` is "swap" (`prune.swap`), with "pooled" alone;
`statistics` says whether batch statistics are those of the dense network, "trained", or "re-estimated" on the images of
the evidence. No attack is run, nothing is fine-tuned.
Command: python -m experiments.run --config=experiments/pruning/one_shot.py --config.network=resnet20 \
    --config.data_dir=DIR --config.examples=2000
Time: 19 s on two CPU cores (median of all 711 lines with `--here`: 5 s).
Expected: clean 34.9 % (dense: 80.7 %), 139,423 bytes; with "trained" statistics 8.8 %.
"""

from ml_collections import ConfigDict

from experiments.common import compressing
from experiments.common.subject import Subject
from experiments.pruning import options, scored
from spartax import checks
from spartax.records import Params


def get_config() -> ConfigDict:
    return options.base(
        method="one shot",
        calibration=512,
        criterion="magnitude",
        allocation="pooled",
        sparsity=0.9,
        statistics=options.NEW,
        curve_images=128,  # of the curves of rate_distortion
    )


def label(config: ConfigDict) -> str:
    return f"{config.criterion}, {config.allocation}, {config.sparsity:.0%}, {config.statistics} statistics"


def judges(config: ConfigDict, eps: float) -> dict:
    del config, eps
    return {}


def compressed(config: ConfigDict, subject: Subject) -> Params:
    """The pruned network."""
    checks.one_of("--config.statistics", config.statistics, (options.KEPT, options.NEW))
    pruned = scored.pruned(config)
    return pruned if config.statistics == options.KEPT else compressing.refreshed(config, subject, pruned)
