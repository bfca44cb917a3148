"""Pruning = criterion (which matter) x allocation (how many each keeps) x pattern (which zeros) x schedule (when).

Every file in `criteria/`, `allocations/`, `patterns/` and `schedules/` is offered here under its own name:
`prune.magnitude()`. `learnt_scores` and `movement` learn the masks in training instead; `finish` fixes them. `rigl` and
`sparse_evolution` train sparse from the start and move the masks.
"""

from spartax import catalog
from spartax.prune import allocations, criteria, patterns, schedules
from spartax.prune.allocations.sap import pq_index
from spartax.prune.learnt_scores import finish, learnt_scores
from spartax.prune.movement import movement
from spartax.prune.prune import prune
from spartax.prune.rigl import rigl
from spartax.prune.sparse_evolution import sparse_evolution

__all__ = [
    "allocations",
    "criteria",
    "finish",
    "learnt_scores",
    "movement",
    "patterns",
    "pq_index",
    "prune",
    "rigl",
    "schedules",
    "sparse_evolution",
]

__getattr__, __dir__ = catalog.exports(__name__, criteria, allocations, patterns, schedules)
