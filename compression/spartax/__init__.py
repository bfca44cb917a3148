"""Spartax: compress JAX models without losing adversarial robustness, and measure whether you did.

A compressed weight is a value: a leaf of the params pytree such as `LowRank` or `Quantized`. `compress` makes them,
`compressed(apply_fn)` runs any JAX function on such params, `spartax.attacks` and `spartax.measure` say what is left.
"""

from spartax.arrays import (
    Bitmask,
    BlockDiagonal,
    BlockSparse,
    LowRank,
    Masked,
    NMSparse,
    Packed,
    Permuted,
    Quantized,
    QuantizedInputs,
    Scored,
    Sum,
    Thresholded,
    TopOfGroups,
    Tucker,
    dense,
    matmul,
    nbytes,
    pack,
)
from spartax.chain import chain
from spartax.checkpoint import restore, save
from spartax.compress import compress
from spartax.correct_bias import correct_bias
from spartax.kernels.paths import kernels
from spartax.measure.size import summary
from spartax.program import collect, compressed, explain, fast_gradients, groups, inspect, straight_through
from spartax.tree import merge, split

__version__ = "0.1.0"

__all__ = [
    "Bitmask",
    "BlockDiagonal",
    "BlockSparse",
    "LowRank",
    "Masked",
    "NMSparse",
    "Packed",
    "Permuted",
    "Quantized",
    "QuantizedInputs",
    "Scored",
    "Sum",
    "Thresholded",
    "TopOfGroups",
    "Tucker",
    "chain",
    "collect",
    "compress",
    "compressed",
    "correct_bias",
    "dense",
    "explain",
    "fast_gradients",
    "groups",
    "inspect",
    "kernels",
    "matmul",
    "merge",
    "nbytes",
    "pack",
    "restore",
    "save",
    "split",
    "straight_through",
    "summary",
]
