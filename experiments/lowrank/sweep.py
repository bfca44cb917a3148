"""Factorizations at four shares of the bytes, in one shot and tuned, trained ranks, and corrections of two ranks.

    python -m experiments.sweep experiments/lowrank/sweep.py
    python -m experiments.sweep experiments/lowrank/sweep.py --config.network=cnn_a --config.data_dir=DIR

`--config.autoattack=True` adds AutoAttack, `--config.eps=0` leaves attacks out; README.md has numbers and times.
"""

import pathlib
from collections.abc import Iterator

from experiments.common.sweeps import Run, grid
from experiments.lowrank.corrected import STARTS
from experiments.lowrank.options import RATIOS

HERE = pathlib.Path(__file__).parent
DATA_AWARE = ("whitened", "atomic_features", "svd")
SECONDS = 60  # of a run on two CPU cores, until there are runs to go by


def runs() -> Iterator[Run]:
    """The grid."""
    yield from grid(HERE / "dense.py")
    yield from grid(HERE / "factorized.py", ratio=RATIOS, factorization=DATA_AWARE)
    yield from grid(HERE / "factorized.py", ratio=RATIOS, factorization=("tucker",), ranks=("shared_energy",))
    yield from grid(HERE / "corrected.py", start=tuple(STARTS), correction=("none",))
    yield from grid(HERE / "corrected.py", start=tuple(STARTS), correction=("svd", "eora"), rank=(4, 8))
    yield from grid(HERE / "tuned.py", ratio=RATIOS, factorization=DATA_AWARE)
    yield from grid(HERE / "tuned.py", ratio=RATIOS, factorization=("tucker",), ranks=("shared_energy",))
    yield from grid(HERE / "trained.py", ratio=RATIOS)
