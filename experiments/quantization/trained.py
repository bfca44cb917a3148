"""Question: how much of what few bits lose does a short training under attack give back?

Papers: LSQ (arXiv 1902.08153), which learns the steps of weights, one for each output channel, and of activations;
PACT (1805.06085), which learns where activations are clipped, from half of the largest on since no weight decay pulls
it down, and leaves those with negative entries as they are: images. `learnt` is "lsq" or "pact", of activations.
Command: python -m experiments.run --config=experiments/quantization/trained.py --config.bits=4 --config.inputs=4 \
    --config.network=cnn_a --config.data_dir=DIR --config.calibration=512 --config.training=4096 --config.restarts=1
Time: 162 s on two CPU cores.
Expected: clean 64.1 %, worst 45.3 % (dense: 66.8 and 54.3 %), 83,992 bytes; untrained (activations.py, ranges by
"squared_error") 60.5 and 37.9 %.
"""

from ml_collections import ConfigDict

import spartax as sx
from experiments.common.subject import BATCH, Subject
from experiments.quantization import options
from spartax import checks, quantize
from spartax.records import Evidence, Params, Path, Transform


def get_config() -> ConfigDict:
    return options.base(method="trained", bits=4, inputs=4, learnt="lsq", tune_epochs=3)


def label(config: ConfigDict) -> str:
    return f"W{config.bits}A{config.inputs}, {config.learnt}, trained"


def build(config: ConfigDict) -> tuple:
    del config
    return ()


def training(config: ConfigDict, subject: Subject) -> Transform:
    checks.one_of("--config.learnt", config.learnt, ("lsq", "pact"))
    checks.positive_int("--config.tune_epochs", config.tune_epochs)
    if config.learnt == "lsq":
        return quantize.lsq(config.bits, channel=True, activations=config.inputs)
    clips = [only(quantize.pact(config.inputs, alpha=top / 2), path) for path, top in clipped(subject).items()]
    return sx.chain(quantize.lsq(config.bits, channel=True), *clips)


def clipped(subject: Subject) -> dict[Path, float]:
    """The largest activation that each weight meets in a batch, without those that meet negative ones."""
    assert subject.train is not None
    found = sx.collect(subject.apply_fn, subject.variables, [subject.train.x[:BATCH]], ("ranges",))["ranges"]
    return {path: float(ends[..., 1].max()) for path, ends in found.items() if (ends[..., 0] == 0).all()}


def only(transform: Transform, path: Path) -> Transform:
    """The transform on one weight."""

    def own(evidence: Evidence) -> Evidence:
        return evidence._replace(layouts={path: evidence.layouts[path]})

    def init(params: Params, evidence: Evidence) -> tuple:
        return transform.init(params, own(evidence))

    def update(params: Params, state: tuple, evidence: Evidence) -> tuple:
        return transform.update(params, state, own(evidence))

    return transform._replace(init=init, update=update)
