"""Under attack: five methods at three sparsities, at once and after a short adversarial fine-tune.

    python -m experiments.sweep experiments/pruning/robust_sweep.py
    python -m experiments.sweep experiments/pruning/robust_sweep.py --config.network=cnn_a --config.data_dir=DIR \\
        --config.examples=500
"""

import pathlib
from collections.abc import Iterator

from experiments.common.sweeps import Run, grid
from experiments.pruning.robust import AFTER, BEFORE, METHODS

HERE = pathlib.Path(__file__).parent
SPARSITIES = (0.8, 0.9, 0.95)
SECONDS = 200  # of a run on two CPU cores, until there are runs to go by


def runs() -> Iterator[Run]:
    """The grid."""
    yield from grid(HERE / "dense.py", attacked=(True,), autoattack=(True,))
    for method in METHODS:
        role = ("baseline",) if method == "random" else ("method",)
        yield from grid(
            HERE / "robust.py", method=(method,), role=role, sparsity=SPARSITIES, stage=(BEFORE, AFTER), seed=(0, 1, 2)
        )
