"""Low rank = factorization (how a matrix is split) x ranks (how many directions each layer keeps).

Every file in `factorizations/` and `ranks/` is offered here under its own name: `lowrank.svd()`.
"""

from spartax import catalog
from spartax.lowrank import factorizations, ranks
from spartax.lowrank.compensate import compensate
from spartax.lowrank.factorize import factorize

__all__ = ["compensate", "factorizations", "factorize", "ranks"]

__getattr__, __dir__ = catalog.exports(__name__, factorizations, ranks)
