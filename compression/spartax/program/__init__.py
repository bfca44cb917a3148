"""The walker over a traced program, and its readings."""

from spartax.program.biases import biases
from spartax.program.collect import collect
from spartax.program.compressed import compressed
from spartax.program.dead_neurons import DeadNeurons, dead_neurons
from spartax.program.fast_gradients import fast_gradients
from spartax.program.groups import Group, Member, groups
from spartax.program.inspect import Usage, explain, inspect
from spartax.program.operations import Operation, operations
from spartax.program.relevance import alpha_beta, epsilon, relevance
from spartax.program.resized import resized
from spartax.program.scalings import Scaling, Scalings, scalings
from spartax.program.straight_through import straight_through

__all__ = [
    "DeadNeurons",
    "Group",
    "Member",
    "Operation",
    "Scaling",
    "Scalings",
    "Usage",
    "alpha_beta",
    "biases",
    "collect",
    "compressed",
    "dead_neurons",
    "epsilon",
    "explain",
    "fast_gradients",
    "groups",
    "inspect",
    "operations",
    "relevance",
    "resized",
    "scalings",
    "straight_through",
]
