"""Every method at five operating points with three seeds, and the baselines it must beat.

    python -m experiments.sweep experiments/benchmark/sweep.py
    python -m experiments.sweep experiments/benchmark/sweep.py --config.network=cnn_a --config.data_dir=DIR

Baselines: random pruning, magnitude within each layer and over all, a narrower dense network at equal bytes and at
equal multiply-adds. `equal_bytes.py` compares mixtures at one share of the bytes. README.md has numbers and times; one
seed (`--config.seed=0`) is 50 runs.
"""

import pathlib
from collections.abc import Iterator

from experiments.benchmark.equal_bytes import STARTS
from experiments.common.sweeps import Run, grid

HERE = pathlib.Path(__file__).parent
SEEDS = (0, 1, 2)
SPARSITIES = (0.5, 0.7, 0.8, 0.9, 0.95)
BITS = (8, 6, 4, 3, 2)
SECONDS = 20  # of a run on two CPU cores, until there are runs to go by


def runs() -> Iterator[Run]:
    """The grid."""
    yield from grid(HERE / "dense.py", seed=SEEDS)
    yield from grid(HERE / "random_pruning.py", sparsity=SPARSITIES, seed=SEEDS)
    yield from grid(HERE / "magnitude.py", allocation=("uniform", "pooled"), sparsity=SPARSITIES, seed=SEEDS)
    yield from grid(HERE / "smaller.py", equal=("bytes", "macs"), sparsity=SPARSITIES, seed=SEEDS)
    yield from grid(HERE / "lowrank.py", ratio=(0.75, 0.5, 0.35, 0.25, 0.15), seed=SEEDS)
    yield from grid(HERE / "sparsegpt.py", sparsity=SPARSITIES, seed=SEEDS)
    yield from grid(HERE / "integers.py", bits=BITS, seed=SEEDS)
    yield from grid(HERE / "gptq.py", bits=BITS, seed=SEEDS)
    yield from grid(HERE / "equal_bytes.py", start=tuple(STARTS), seed=SEEDS)
