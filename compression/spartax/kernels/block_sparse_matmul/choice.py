"""Which path a use of the kernel takes."""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from spartax.kernels import paths
from spartax.kernels.block_sparse_matmul import gpu, tpu, xla


class Case(NamedTuple):
    """What the choice depends on.

    Attributes:
      batch: rows of `x`.
      grid: rows and columns of blocks.
      block: rows and columns of one block.
      stored: number of stored blocks.
      kind: dtype of `x`.
      taps: positions that a convolution kernel looks at; 1 for a product.
    """

    batch: int
    grid: tuple[int, int]
    block: tuple[int, int]
    stored: int
    kind: np.dtype
    taps: int = 1

    @property
    def transposed(self) -> "Case":
        """The same for the transposed matrix."""
        (rows, columns), (r, c) = self.grid, self.block
        return self._replace(grid=(columns, rows), block=(c, r))

    @property
    def density(self) -> float:
        """Stored blocks over all blocks."""
        return self.stored / max(self.grid[0] * self.grid[1], 1)


def choose(case: Case) -> paths.Choice:
    """The path asked for, or the one that wins where it was measured: a None path says that dense is faster."""
    return paths.choose(lambda platform: _default(case, platform), lambda path: misfit(case, path))


def misfit(case: Case, path: str) -> str | None:
    """Why the Pallas kernel `path` cannot take a case, or None."""
    if path == "gpu":
        return gpu.misfit(case.block, case.kind)
    return tpu.misfit(case.block, case.stored, case.kind)


def _default(case: Case, platform: str) -> paths.Choice:
    what = f"{case.density:.0%} of blocks {case.block[0]} x {case.block[1]}, batch {case.batch}"
    if platform == "cpu":
        most = fastest_density(case)
        if case.density <= most:
            return paths.Choice("xla", what)
        limit = f"wins up to {most:.0%}" if most else "wins for float32 products with large matrices only"
        return paths.Choice(None, f"stored small, computed dense: {what}, where the kernel {limit}")
    whole = not any(side % 128 for side in case.block)
    if platform == "tpu" and case.density <= 0.5 and whole and misfit(case, "tpu") is None:
        return paths.Choice("tpu", what)
    return paths.Choice(
        None, f"stored small, computed dense: {what}, not measured here; sx.kernels('pallas') asks for it"
    )


def fastest_density(case: Case) -> float:
    """The largest density at which the XLA path beats the dense float32 product on CPU, inside what was measured.

    Two cores, matrices of 256 to 4096 on a side, batches of 1 to 2048, square blocks (`experiments.bench kernels`).
    Convolutions with larger windows than 1 x 1 copy their input once for each tap: a 3 x 3 one of 64 x 64 blocks, 90 %
    empty, was 2.0 to 2.4 and 1.3 times slower than a dense one for 8 and 256 images, though 1.4 times faster for one.
    """
    side, entries = min(case.block), math.prod(case.grid) * math.prod(case.block)
    if jnp.dtype(case.kind) != jnp.float32 or case.taps > 1 or entries < 2**18 or side < 8:
        return 0.0
    if entries < 2**20:
        return 0.105 if case.batch >= 64 and side >= 16 else 0.0
    if side < 16:
        return 0.055
    small = xla.by_block(case.batch, (case.stored, *case.block), xla.Tuning())
    return 0.21 if small or (side >= 32 and case.batch >= 256) else 0.105
