"""Pruning = criterion (which matter) x allocation (how many each keeps) x pattern (which zeros) x schedule (when).

Every file in `criteria/`, `allocations/`, `patterns/` and `schedules/` is offered here under its own name:
`prune.magnitude()`. `learnt_scores` and `movement` learn the masks in training instead; `finish` fixes them. `rigl` and
`sparse_evolution` train sparse from the start and move the masks; `flying_bird` adapts how sparse they are to the
robust generalization gap. `radmm` and `twin_rep` make dense weights sparse by training. `group_scores`,
`select_channels`, `mask_groups` and `shrink` remove whole channels. `swap` moves the kept weights of all layers
together.
"""

from spartax import catalog
from spartax.prune import allocations, criteria, patterns, schedules
from spartax.prune.allocations.sap import pq_index
from spartax.prune.flying_bird import flying_bird
from spartax.prune.group_scores import group_scores
from spartax.prune.iterative import iterative
from spartax.prune.lapp import lapp
from spartax.prune.learnt_scores import finish, learnt_scores
from spartax.prune.mask_groups import dead_channels, mask_groups
from spartax.prune.movement import movement
from spartax.prune.precrop import Cropped, precrop
from spartax.prune.prune import prune
from spartax.prune.radmm import radmm
from spartax.prune.rigl import rigl
from spartax.prune.select_channels import select_channels
from spartax.prune.selective_activation import selective_activation
from spartax.prune.shrink import Shrunk, shrink
from spartax.prune.sparse_evolution import sparse_evolution
from spartax.prune.sr_ste import sr_ste
from spartax.prune.swap import swap
from spartax.prune.twin_rep import twin_rep

__all__ = [
    "Cropped",
    "Shrunk",
    "allocations",
    "criteria",
    "dead_channels",
    "finish",
    "flying_bird",
    "group_scores",
    "iterative",
    "lapp",
    "learnt_scores",
    "mask_groups",
    "movement",
    "patterns",
    "pq_index",
    "precrop",
    "prune",
    "radmm",
    "rigl",
    "schedules",
    "select_channels",
    "selective_activation",
    "shrink",
    "sparse_evolution",
    "sr_ste",
    "swap",
    "twin_rep",
]

__getattr__, __dir__ = catalog.exports(__name__, criteria, allocations, patterns, schedules)
