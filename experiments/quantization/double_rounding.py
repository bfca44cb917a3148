"""Question: what does one copy of int8, trained under attack to be read at several widths, keep at each of them?

Paper: Double Rounding and ALRS ("Nearly Lossless Adaptive Bit Switching", S063). One training for all widths: it is
done by the run that comes first, and kept in the folder of results. `bits` is the width that is judged; the bytes are
those of the copy, the same for all. Activations stay floats.
Command: python -m experiments.run --config=experiments/quantization/double_rounding.py --config.bits=2
Time: not measured yet.
Expected: not measured on digits; ResNet-20, clean: 85.0, 85.2, 84.2 and 78.6 % at 8, 6, 4 and 2 bits. In the paper 8, 6
and 4 bits are alike, and 2 bits lose about two points.
"""

import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

import spartax as sx
from experiments.common import compressing, networks
from experiments.common.subject import Subject, stages, tuned
from experiments.quantization import options
from spartax import checks, quantize, train
from spartax.records import Params

WIDTHS = (8, 6, 4, 2)


def get_config() -> ConfigDict:
    return options.base(method="double rounding", bits=8, tune_epochs=3, step_rate=5e-4)


def label(config: ConfigDict) -> str:
    return f"W{config.bits}, double rounding"


def build(config: ConfigDict) -> tuple:
    del config
    return ()


def compressed(config: ConfigDict, subject: Subject) -> Params:
    checks.one_of("--config.bits", config.bits, WIDTHS)
    checks.positive_int("--config.tune_epochs", config.tune_epochs)
    assert subject.train is not None
    numbers = [config[name] for name in ("epochs", "tune_epochs", "tune_rate", "step_rate", "seed")]
    what = ["double rounding", subject.name, repr(subject.module), len(subject.train.y), subject.eps, *numbers]
    make = lambda saved: sx.pack(trained(config, subject._replace(stages=stages(saved))))  # noqa: E731
    store = networks.once(config, what, make)
    return compressing.refreshed(config, subject, quantize.switch(store, config.bits))


def trained(config: ConfigDict, subject: Subject) -> Params:
    """All widths in turn on every batch, with Adam for the weights and ALRS for the steps."""

    def optimizer(rate: optax.Schedule) -> optax.GradientTransformation:
        share = config.step_rate / config.tune_rate
        weights = optax.adam(lambda count: rate(jnp.asarray(count) // len(WIDTHS)))
        return train.alrs(lambda count: share * jnp.asarray(rate(count)), weights, WIDTHS)

    return tuned(
        subject,
        subject.variables,
        config.tune_epochs,
        config.seed,
        config.tune_rate,
        quantize.double_rounding(WIDTHS, channel=True),
        optimizer=optimizer,
        around=lambda step: train.switching(step, WIDTHS),
    )
