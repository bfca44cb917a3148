"""Question: which mixture keeps most accuracy under attack when all take the same bytes?

Papers: EoRA (S055; arXiv 2410.21271), which spends what a mixture leaves of the budget on a low-rank correction of its
weights; SVD-LLM (2403.07378) for factors alone. `start` is "int4", "2:4 int8", "half int8" (the smaller half of the
weights removed in one ranking), or "factors". `share` is of the dense bytes of the weights that 2:4 can take: those
whose input channels 4 divides; the others stay dense in all.
Command: python -m experiments.run --config=experiments/benchmark/equal_bytes.py --config.start=int4 --config.share=0.2
Time: about 45 s on two busy CPU cores, once the dense network is trained.
Expected: with seed 0 clean 97.5 %, worst of the attacks 82.1 % at 35,578 bytes; half int8 98.1 and 80.8 %, 2:4 int8
96.4 and 72.5 %, factors 27.2 and 15.1 %.
"""

from ml_collections import ConfigDict

import spartax as sx
from experiments.common import compressing, configs
from experiments.common.subject import Subject
from spartax import checks, lowrank, prune, quantize, tree
from spartax.records import Array, Params, Path, Transform

INT8 = quantize.quantize(quantize.integer(8))
STARTS: dict[str, tuple[Transform, ...]] = {
    "int4": (quantize.quantize(quantize.integer(4)),),
    "2:4 int8": (prune.prune(prune.magnitude(), pattern=prune.n_of_m(2, 4)), INT8),
    "half int8": (prune.prune(prune.magnitude(), 0.5, prune.pooled()), INT8),
    "factors": (),
}


def get_config() -> ConfigDict:
    return configs.base(method="equal bytes", start="int4", share=0.2)


def label(config: ConfigDict) -> str:
    return f"{config.start}{'' if config.start == 'factors' else ' + residual'}, {config.share:.0%} of bytes"


def build(config: ConfigDict) -> tuple[Transform, ...]:
    checks.one_of("--config.start", config.start, tuple(STARTS))
    return STARTS[config.start]


def compressed(config: ConfigDict, subject: Subject) -> Params:
    """The mixture, corrected by as many directions as the budget still pays for."""
    start = build(config)
    if not start:
        steps = (lowrank.factorize(lowrank.whitened(), lowrank.byte_budget(config.share)),)
    else:
        alone = compressing.compressed(config, subject, *start, rule=taken)
        left = config.share - spent(alone, subject.variables)
        steps = (*start, lowrank.compensate(lowrank.whitened(), lowrank.byte_budget(left)))
    return compressing.repaired(config, subject, compressing.compressed(config, subject, *steps, rule=taken))


def taken(path: Path, weight: Array) -> bool:
    """Whether 2:4 along the input channels is possible."""
    del path
    return weight.shape[-2] % 4 == 0


def spent(params: Params, dense: Params) -> float:
    """Share of the dense bytes that the compressed weights take."""
    small = {path: leaf for path, leaf in tree.weights(params).items() if sx.arrays.is_leaf(leaf)}
    return sx.nbytes(sx.pack(small)) / sx.nbytes(tree.pick(dense, small))
