"""Question: what do weights of one bit, trained under attack from the dense network on, keep of it?

Papers: ReSTE (arXiv 2308.06689), whose backward pass nears the sign as `o` rises to `o_end`; with `o_end` 1 it is the
straight-through estimator with a window (1308.3432). All weights are `sign(w) E|w|`, one size for each layer;
activations stay floats, since these networks have ReLUs in front of their weights, whose sign says nothing.
Command: python -m experiments.run --config=experiments/quantization/binary.py --config.tune_epochs=5 \
    --config.network=cnn_a --config.data_dir=DIR --config.calibration=512 --config.training=4096 --config.restarts=1
Time: 66 s on two CPU cores.
Expected: clean 53.5 %, worst 43.4 % (dense: 66.8 and 54.3 %), 30,589 bytes: more than three bits without training
(44.1 and 32.4 % at best) at half the bytes, and no difference between STE (53.1 and 43.0 %) and ReSTE.
"""

from ml_collections import ConfigDict

from experiments.common.subject import Subject, steps_of
from experiments.quantization import options
from spartax import checks, quantize
from spartax.records import Transform

UPDATES = 50  # of the power o


def get_config() -> ConfigDict:
    return options.base(method="binary", o_end=3.0, tune_epochs=10, tune_rate=2e-3)


def label(config: ConfigDict) -> str:
    return f"binary, {'STE' if config.o_end == 1 else f'ReSTE {config.o_end:g}'}"


def build(config: ConfigDict) -> tuple:
    del config
    return ()


def training(config: ConfigDict, subject: Subject) -> Transform:
    assert subject.train is not None
    checks.positive_int("--config.tune_epochs", config.tune_epochs)
    steps = steps_of(subject.train, config.tune_epochs)
    return quantize.reste(steps, config.o_end, every=max(1, steps // UPDATES))
