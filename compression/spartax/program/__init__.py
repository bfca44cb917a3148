"""The walker over a traced program, and its readings."""

from spartax.program.collect import collect
from spartax.program.compressed import compressed
from spartax.program.fast_gradients import fast_gradients
from spartax.program.inspect import Usage, explain, inspect
from spartax.program.relevance import alpha_beta, epsilon, relevance
from spartax.program.straight_through import straight_through

__all__ = [
    "Usage",
    "alpha_beta",
    "collect",
    "compressed",
    "epsilon",
    "explain",
    "fast_gradients",
    "inspect",
    "relevance",
    "straight_through",
]
