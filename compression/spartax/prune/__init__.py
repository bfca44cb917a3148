"""Pruning = criterion (which matter) x allocation (how many each keeps) x pattern (which zeros) x schedule (when).

Every file in `criteria/`, `allocations/`, `patterns/` and `schedules/` is offered here under its own name:
`prune.magnitude()`. `learnt_scores` and `movement` learn the masks in training instead; `finish` fixes them.
"""

from spartax import catalog
from spartax.prune import allocations, criteria, patterns, schedules
from spartax.prune.learnt_scores import finish, learnt_scores
from spartax.prune.movement import movement
from spartax.prune.prune import prune

__all__ = ["allocations", "criteria", "finish", "learnt_scores", "movement", "patterns", "prune", "schedules"]

__getattr__, __dir__ = catalog.exports(__name__, criteria, allocations, patterns, schedules)
