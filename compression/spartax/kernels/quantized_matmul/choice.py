"""Which path a quantized product takes."""

from typing import NamedTuple

import jax.numpy as jnp

from spartax.kernels import paths
from spartax.kernels.quantized_matmul import gpu, tpu
from spartax.kernels.quantized_matmul.form import Form

SMALL = 2**20  # entries; a smaller matrix is one block, and making it dense costs the same


class Case(NamedTuple):
    """What a choice depends on.

    Attributes:
      rows: of x, M.
      outputs: O.
      groups: scales along a row of the matrix.
      zero: whether there are zero points.
      form: of the codes.
      dtype: of x.
      int8: whether the rows of x are rounded to int8.
    """

    rows: int
    outputs: int
    groups: int
    zero: bool
    form: Form
    dtype: jnp.dtype
    int8: bool


def choose(case: Case) -> paths.Choice:
    """The path of one use, by what is asked for, the platform and the shapes."""
    return paths.choose(lambda platform: _default(case, platform), lambda path: _misfit(case, path))


def _misfit(case: Case, path: str) -> str | None:
    return (gpu if path == "gpu" else tpu).misfit(case)


def _default(case: Case, platform: str) -> paths.Choice:
    if platform == "cpu":
        return _on_cpu(case)
    problem = _misfit(case, platform)
    if problem is None and platform == "tpu":
        return paths.Choice(platform, "Pallas, not measured")
    problem = problem or "the Pallas kernel was not measured here; sx.kernels('pallas') asks for it"
    return paths.Choice("xla" if case.int8 else None, problem)


def _on_cpu(case: Case) -> paths.Choice:
    """Measured at 1 to 1024 rows of 4096 x 4096 on two cores (`experiments.bench kernels`).

    Making the matrix dense at every call, the alternative, took 37 ms and more, and as a whole 1 to 80 times as long.
    """
    if case.int8:
        return paths.Choice("xla", "integer products" if case.groups == 1 else "scales in groups: codes as floats")
    if case.outputs * case.form.length < SMALL:
        return paths.Choice(None, "too small to gain")
    kept = case.rows > 32 or (case.rows == 1 and case.groups > 1)
    limit = "; no faster than a weight that is kept dense" if kept else ""
    return paths.Choice("xla", f"a block of outputs at a time, not made dense at every call{limit}")
