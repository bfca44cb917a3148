"""Whether a compressed weight and its low-rank term are one product."""

from typing import Any

import jax.numpy as jnp

from spartax.kernels import paths
from spartax.kernels.lowrank_residual_matmul import gpu
from spartax.kernels.lowrank_residual_matmul.bases import Base, Dense


def choose(own: paths.Choice, base: type[Base]) -> paths.Choice:
    """The path of the one product, for a weight of this kind that takes the path `own` by itself.

    None says that each term is better multiplied on its own. On CPU one product was measured and is not faster. On GPU
    only codes have a kernel, which no weight takes unasked: for the others XLA lets a library product add into an array
    that is there, so that the thin product `t V` starts with what the kernel of the base gave, and all that one kernel
    could save is one more pass over the result.
    """
    if own.path in ("tpu", "reference"):
        return paths.Choice(own.path, "the low-rank term starts the sum")
    if own.path == "gpu":
        problem = gpu.misfit(base)
        return paths.Choice(None if problem else "gpu", problem or "the low-rank term ends the sum; not measured")
    return paths.Choice(None, "each term on its own")


def choose_dense(kind: Any) -> paths.Choice:
    """The same for a dense weight and x of a dtype: unless asked for, XLA adds the two products."""
    own = paths.choose(lambda platform: paths.Choice(None, "dense"), lambda path: _misfit(path, kind))
    return choose(own, Dense)


def _misfit(path: str, kind: Any) -> str | None:
    if path == "gpu":
        return gpu.misfit(Dense)
    return None if jnp.dtype(kind).itemsize <= 4 else "float64 has no matrix unit"
