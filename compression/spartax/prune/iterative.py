"""Pruning in rounds without training between them: each scores what the one before left."""

from typing import Any

from spartax import checks
from spartax.program.collect import NEEDS
from spartax.records import Evidence, Info, Params, Transform

MEASURED = frozenset({"grads", *NEEDS})  # what is known of the network for its first weights alone


def iterative(pruner: Transform, rounds: int) -> Transform:
    """All refreshes of the pruner's schedule at once: its update for the steps `0, ..., rounds - 1`.

    Iterative SNIP removes entries for good and takes the gradient where the last round left the network,

        prune.iterative(prune.prune(prune.snip(), 0.99, schedule=prune.exponential(100), regrow=False), 100)

    so that a layer does not empty before the others know; one shot does at high sparsity. It costs the criterion
    `rounds` times. See de Jorge et al., Progressive Skeletonization: Trimming more fat from a network at
    initialization, arXiv 2006.09081.

    Args:
      pruner: such as `prune.prune(..., schedule=prune.exponential(rounds), regrow=False)`.
      rounds: number of updates; the schedule should end there.

    Raises:
      ValueError: `rounds` below 1; a pruner whose evidence is measured once, on the network before the first round.
    """
    checks.positive_int("rounds", rounds)
    stale = sorted(pruner.needs & MEASURED)
    if stale:
        raise ValueError(
            f"pruner needs {', '.join(stale)}, measured before the first round; take one that needs the objective, "
            "such as prune.snip()."
        )

    def update(params: Params, state: Any, evidence: Evidence) -> tuple[Params, Any, Info]:
        info: Info = {}
        for step in range(rounds):
            params, state, info = pruner.update(params, state, evidence._replace(step=step))
        return params, state, info

    return Transform(pruner.needs, pruner.init, update, pruner.check)
