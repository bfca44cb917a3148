"""Weights of 8 to 2 bits by four roundings and mixed, activations too, and both trained under attack, down to one bit.

    python -m experiments.sweep experiments/quantization/sweep.py
    python -m experiments.sweep experiments/quantization/sweep.py --config.network=cnn_a --config.data_dir=DIR

sweep_autoattack.py adds AutoAttack where it matters; README.md has numbers and times.
"""

import pathlib
from collections.abc import Iterator

from experiments.common.sweeps import Run, grid
from experiments.quantization.mixed import SENSITIVITIES
from experiments.quantization.options import ROUNDINGS

HERE = pathlib.Path(__file__).parent
BITS = (8, 6, 4, 3, 2)
SECONDS = 20  # of a run on two CPU cores, until there are runs to go by


def runs() -> Iterator[Run]:
    """The grid."""
    yield from grid(HERE / "dense.py")
    for inputs, bits in ((8, 8), (8, 4), (4, 4)):
        yield from grid(HERE / "activations.py", bits=(bits,), inputs=(inputs,), observer=("min_max", "squared_error"))
    yield from grid(HERE / "weights.py", rounding=ROUNDINGS, bits=BITS)
    yield from grid(HERE / "mixed.py", sensitivity=SENSITIVITIES, bits=(4, 3))
    yield from grid(HERE / "mixed.py", sensitivity=("output_kl",), bits=(4, 3), rounding=("hqq",))
    for inputs, bits in ((8, 4), (4, 4)):
        yield from grid(HERE / "trained.py", bits=(bits,), inputs=(inputs,), learnt=("lsq", "pact"))
    yield from grid(HERE / "double_rounding.py", bits=(8, 6, 4, 2))
    yield from grid(HERE / "binary.py", o_end=(1.0, 3.0))
