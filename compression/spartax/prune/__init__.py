"""Pruning = criterion (which weights matter) x allocation (how many each layer keeps) x pattern (which zeros).

Every file in `criteria/`, `allocations/` and `patterns/` is offered here under its own name: `prune.magnitude()`.
"""

from spartax import catalog
from spartax.prune import allocations, criteria, patterns
from spartax.prune.prune import prune

__all__ = ["allocations", "criteria", "patterns", "prune"]

__getattr__, __dir__ = catalog.exports(__name__, criteria, allocations, patterns)
