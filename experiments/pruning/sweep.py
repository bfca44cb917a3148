"""One shot: criteria with five allocations and SWAP, at five sparsities, with old batch statistics and refreshed ones.

    python -m experiments.sweep experiments/pruning/sweep.py --here
    python -m experiments.sweep experiments/pruning/sweep.py --here --config.network=resnet20 --config.data_dir=DIR \\
        --config.examples=2000 --config.calibration=512

`--here` keeps evidence and scores from run to run; two such commands may run beside each other. A new criterion adds
its rows. README.md has numbers and times; robust_sweep.py is the part under attack.
"""

import pathlib
from collections.abc import Iterator

from experiments.common.sweeps import Run, grid
from experiments.pruning.options import KEPT, NEW, SPARSITIES
from experiments.pruning.scored import SWAP
from spartax import catalog, prune

HERE = pathlib.Path(__file__).parent
ALLOCATIONS = ("uniform", "pooled", "erk", "lamp", "rate_distortion")
SECONDS = 5  # of a run on one CPU core, until there are runs to go by


def runs() -> Iterator[Run]:
    """The grid; what draws has three seeds."""
    yield from grid(HERE / "dense.py")
    shared = {"allocation": ALLOCATIONS, "sparsity": SPARSITIES, "statistics": (KEPT, NEW)}
    for criterion in catalog.names(prune.criteria):
        drawn = {"role": ("baseline",), "seed": (0, 1, 2)} if criterion == "random" else {}
        yield from grid(HERE / "one_shot.py", criterion=(criterion,), **drawn, **shared)
    yield from grid(HERE / "one_shot.py", criterion=(SWAP,), **{**shared, "allocation": ("pooled",)})
