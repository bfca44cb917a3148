"""AutoAttack on top of the other attacks, 200 images, for the points where the roundings and the bits part.

    python -m experiments.sweep experiments/quantization/sweep_autoattack.py --config.network=cnn_a \\
        --config.data_dir=DIR

README.md has numbers and times.
"""

import pathlib
from collections.abc import Iterator

from experiments.common.sweeps import Run, grid
from experiments.quantization.options import ROUNDINGS

HERE = pathlib.Path(__file__).parent
IMAGES = 200
SECONDS = 120  # of a run on two CPU cores, until there are runs to go by


def runs() -> Iterator[Run]:
    """The grid."""
    strongest = {"autoattack": (True,), "examples": (IMAGES,)}
    static = {"observer": ("squared_error",), **strongest}
    yield from grid(HERE / "dense.py", **strongest)
    yield from grid(HERE / "activations.py", bits=(8,), inputs=(8,), **static)
    yield from grid(HERE / "weights.py", bits=(4,), rounding=ROUNDINGS, **strongest)
    yield from grid(HERE / "weights.py", bits=(3,), rounding=("gptq", "hqq"), **strongest)
    yield from grid(HERE / "activations.py", bits=(4,), inputs=(4,), **static)
    yield from grid(HERE / "trained.py", bits=(4,), inputs=(4,), **strongest)
    yield from grid(HERE / "mixed.py", bits=(3,), sensitivity=("output_kl",), **strongest)
