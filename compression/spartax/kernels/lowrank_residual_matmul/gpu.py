"""The product on GPU (Pallas, Mosaic GPU, Hopper): the kernel of the codes, which adds the low-rank term to each tile.

The second term is never an array: behind the loop over the codes, with their scales in the sum already, the same loop
runs over the tiles of `V^T` and t. Only zero points take one more pass, as they do without a low-rank term.

It was lowered for CUDA and interpreted, never run on a GPU nor timed: `sx.kernels("pallas")` asks for it.
"""

from jax import lax

from spartax.kernels.lowrank_residual_matmul.bases import Base, Codes
from spartax.kernels.quantized_matmul import gpu as codes_gpu
from spartax.records import Array


def misfit(base: type[Base]) -> str | None:
    """Why this kernel cannot take a kind of base, or None; what fits the kernel of the codes fits it."""
    if base is Codes:
        return None
    return f"the Mosaic GPU kernel adds a low-rank term to Codes, not to {base.__name__}"


def matmul(
    x: Array, base: Codes, t: Array, v: Array, precision: lax.PrecisionLike, *, interpret: bool = False
) -> Array:
    """`x W + t V`: x `[B, K]`, t `[B, r]`, V `[r, O]`, all of one 16-bit dtype -> float32 `[B, O]`.

    There is one precision, that of 16-bit products and float32 sums.
    """
    return codes_gpu.matmul(x, *base, residual=(t, v), interpret=interpret)
