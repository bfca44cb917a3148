"""Which path a use of the kernel takes."""

from typing import NamedTuple

import numpy as np

from spartax.kernels import paths
from spartax.kernels.nm_matmul import gpu, tpu


class Case(NamedTuple):
    """What the choice depends on.

    Attributes:
      n: kept values of a group.
      m: size of a group.
      groups: groups along the inputs.
      columns: outputs.
      kind: dtype of `x`.
    """

    n: int
    m: int
    groups: int
    columns: int
    kind: np.dtype


def choose(case: Case) -> paths.Choice:
    """The path asked for; by default none, because no matrix unit that JAX reaches here multiplies N:M matrices faster.

    Hopper's sparse tensor cores are not reachable from Pallas and TPUs have none, so N:M is a storage format.
    """
    why = f"stored small, computed dense: no matrix unit here skips {case.n}:{case.m} zeros"
    return paths.choose(lambda platform: paths.Choice(None, why), lambda path: misfit(case, path))


def misfit(case: Case, path: str) -> str | None:
    """Why the Pallas kernel `path` cannot take a case, or None."""
    return (gpu if path == "gpu" else tpu).misfit(*case)
