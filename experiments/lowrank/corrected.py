"""Question: what does a thin correction of codes or of a 2:4 mask bring back, and must it look at the data?

Paper: EoRA (S055; arXiv 2410.21271). `start` is "int4", "int3" or "2:4"; `correction` is "none", "svd" (the least error
of the weight) or "eora" (the least error of the output). All leave out what 2:4 cannot take: weights whose input
channels 4 does not divide.
Command: python -m experiments.run --config=experiments/lowrank/corrected.py --config.start=2:4 --config.rank=4 \
    --config.network=cnn_a --config.data_dir=DIR --config.autoattack=True --config.examples=200
Time: 110 s on two CPU cores.
Expected: clean 67.0 %, worst 46.0 %, 471,827 bytes, where the mask alone keeps 32.0 and 22.5 % and the SVD brings it to
47.0 and 33.0 %.
"""

from ml_collections import ConfigDict

from experiments.common import compressing
from experiments.common.subject import Subject
from experiments.lowrank import options
from spartax import checks, lowrank, prune, quantize
from spartax.records import Params, Transform

STARTS = {
    "int4": quantize.quantize(quantize.integer(4)),
    "int3": quantize.quantize(quantize.integer(3)),
    "2:4": prune.prune(prune.magnitude(), pattern=prune.n_of_m(2, 4)),
}
CORRECTIONS = {"none": None, "svd": lowrank.svd(), "eora": lowrank.whitened()}
judges = options.judges


def get_config() -> ConfigDict:
    return options.base(method="corrected", start="int3", correction="eora", rank=4)


def label(config: ConfigDict) -> str:
    return config.start if config.correction == "none" else f"{config.start} + {config.correction} {config.rank}"


def build(config: ConfigDict) -> tuple[Transform, ...]:
    checks.one_of("--config.start", config.start, tuple(STARTS))
    checks.one_of("--config.correction", config.correction, tuple(CORRECTIONS))
    factorization = CORRECTIONS[config.correction]
    if factorization is None:
        return (STARTS[config.start],)
    return STARTS[config.start], lowrank.compensate(factorization, lowrank.fixed(config.rank))


def compressed(config: ConfigDict, subject: Subject) -> Params:
    """Without the weights that 2:4 cannot take."""
    rule = lambda path, weight: weight.shape[-2] % 4 == 0  # noqa: E731
    found = compressing.compressed(config, subject, *build(config), rule=rule)
    return compressing.repaired(config, subject, found)
