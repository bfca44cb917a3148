"""Spartax: compress JAX models without losing adversarial robustness, and measure whether you did.

A compressed weight is a value: a leaf of the params pytree such as `LowRank` or `Quantized`. `compressed(apply_fn)` runs
any JAX function on such params, `compress` makes them, `attacks` and `measure` say what is left.
"""

from spartax.arrays import Bitmask, LowRank, Masked, Packed, Quantized, Sum, dense, matmul, nbytes, pack
from spartax.program import compressed, explain, fast_gradients, inspect
from spartax.tree import merge, split

__version__ = "0.1.0"

__all__ = [
    "Bitmask",
    "LowRank",
    "Masked",
    "Packed",
    "Quantized",
    "Sum",
    "compressed",
    "dense",
    "explain",
    "fast_gradients",
    "inspect",
    "matmul",
    "merge",
    "nbytes",
    "pack",
    "split",
]
