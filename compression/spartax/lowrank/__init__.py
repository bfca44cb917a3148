"""Low rank = factorization (how a matrix is split) x ranks (how many directions each layer keeps).

Every file in `factorizations/` and `ranks/` is offered here under its own name: `lowrank.svd()`.
"""

from spartax import catalog
from spartax.lowrank import factorizations, maestro, ranks
from spartax.lowrank.compensate import compensate
from spartax.lowrank.factorize import factorize
from spartax.lowrank.otherwise import otherwise
from spartax.lowrank.trained_rank import nuclear_norm, trained_rank

__all__ = ["compensate", "factorizations", "factorize", "maestro", "nuclear_norm", "otherwise", "ranks", "trained_rank"]

__getattr__, __dir__ = catalog.exports(__name__, factorizations, ranks)
