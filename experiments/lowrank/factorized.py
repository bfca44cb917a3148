"""Question: which factorization keeps most accuracy, clean and attacked, at the same bytes, in one shot?

Papers: SVD; ASVD (arXiv 2312.05821); SVD-LLM, "whitened" (2403.07378); Atomic Feature Mimicking (S013); Tucker-2
(1511.06530), where the rest is left to the SVD. `ranks` is "sensitivity", by the measured distortion of the logits,
"byte_budget", by the spectra of the weights, or "shared_energy", the only one that prices Tucker-2.
Command: python -m experiments.run --config=experiments/lowrank/factorized.py --config.ratio=1/4 \
    --config.network=resnet2b --config.data_dir=DIR --config.autoattack=True --config.examples=200
Time: 49 s on two CPU cores.
Expected: clean 49.0 %, worst 38.0 % (dense: 67.0 and 56.5 %), 108,488 bytes; what looks at the data is ahead of the SVD
(40.0 and 27.0 %), most at small budgets.
"""

from ml_collections import ConfigDict

from experiments.lowrank import options
from spartax.records import Transform

judges = options.judges


def get_config() -> ConfigDict:
    return options.base(method="factorized", factorization="whitened", ranks="sensitivity", ratio=0.5)


def label(config: ConfigDict) -> str:
    return f"{config.factorization}, {config.ranks}, {options.share(config.ratio)}"


def build(config: ConfigDict) -> tuple[Transform, ...]:
    return options.factorize(config.factorization, config.ranks, config.ratio)
