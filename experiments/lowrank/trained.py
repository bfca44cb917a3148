"""Question: does a network that is truncated while it is trained lose less when it is factorized afterwards?

Paper: "Trained Rank Pruning for Efficient Deep Neural Networks" (S022), without the nuclear norm: every 20 steps each
weight becomes its nearest matrix that holds `kept` of its energy. The network is trained on for `tune_epochs` that way,
then factorized by the SVD in one shot; `tuned.py` with the SVD is what it must beat.
Command: python -m experiments.run --config=experiments/lowrank/trained.py --config.ratio=1/4 --config.network=cnn_a \
    --config.data_dir=DIR --config.autoattack=True --config.examples=200
Time: 98 s on two CPU cores.
Expected: clean 20.0 %, worst 15.5 %, 206,780 bytes; as many epochs of fine-tuning of SVD factors give 64.5 and 47.0 %.
"""

from ml_collections import ConfigDict

from experiments.common import compressing
from experiments.common.subject import Subject, tuned
from experiments.lowrank import options
from spartax import checks, lowrank
from spartax.records import Params, Transform

judges = options.judges


def get_config() -> ConfigDict:
    shared = {"factorization": "svd", "ranks": "sensitivity", "ratio": 0.5}
    return options.base(method="trained rank", kept=0.9, every=20, tune_epochs=2, **shared)


def label(config: ConfigDict) -> str:
    return f"trained rank {config.kept:g}, {config.ranks}, {options.share(config.ratio)}"


def build(config: ConfigDict) -> tuple[Transform, ...]:
    return options.factorize(config.factorization, config.ranks, config.ratio)


def compressed(config: ConfigDict, subject: Subject) -> Params:
    """Trained, then factorized."""
    checks.positive_int("--config.tune_epochs", config.tune_epochs)
    method = lowrank.trained_rank(config.kept, every=config.every)
    low = tuned(subject, subject.variables, config.tune_epochs, config.seed, config.tune_rate, method)
    subject = subject._replace(variables=low)
    return compressing.refreshed(config, subject, compressing.compressed(config, subject, *build(config)))
