"""What a compressed weight is: one leaf per file, and the verbs that every leaf answers."""

from spartax.arrays.bitmask import Bitmask
from spartax.arrays.block_diagonal import BlockDiagonal
from spartax.arrays.block_sparse import BlockSparse, block_sparse
from spartax.arrays.double_rounded import DoubleRounded
from spartax.arrays.fake_inputs import FakeInputs
from spartax.arrays.fake_quantized import FakeQuantized
from spartax.arrays.fixed_point import FixedPoint
from spartax.arrays.learnt_clip import LearntClip
from spartax.arrays.learnt_step import LearntStep
from spartax.arrays.lowrank import LowRank
from spartax.arrays.masked import Masked
from spartax.arrays.nm_sparse import NMSparse, nm_sparse
from spartax.arrays.packed import Packed
from spartax.arrays.permuted import Permuted
from spartax.arrays.pulled import Pulled
from spartax.arrays.quantized import Quantized
from spartax.arrays.quantized_inputs import QuantizedInputs
from spartax.arrays.scored import Scored
from spartax.arrays.separable import Depthwise, Separable
from spartax.arrays.sign import Sign
from spartax.arrays.sum import Sum
from spartax.arrays.switched_step import SwitchedStep
from spartax.arrays.thresholded import Thresholded
from spartax.arrays.through import Through, rounds_inputs, straight_through_inputs
from spartax.arrays.top_of_groups import TopOfGroups
from spartax.arrays.tucker import Tucker
from spartax.arrays.twin import Twin
from spartax.arrays.use import Use
from spartax.arrays.verbs import Leaf, Plan, dense, is_leaf, matmul, nbytes, pack

__all__ = [
    "Bitmask",
    "BlockDiagonal",
    "BlockSparse",
    "Depthwise",
    "DoubleRounded",
    "FakeInputs",
    "FakeQuantized",
    "FixedPoint",
    "Leaf",
    "LearntClip",
    "LearntStep",
    "LowRank",
    "Masked",
    "NMSparse",
    "Packed",
    "Permuted",
    "Plan",
    "Pulled",
    "Quantized",
    "QuantizedInputs",
    "Scored",
    "Separable",
    "Sign",
    "Sum",
    "SwitchedStep",
    "Thresholded",
    "Through",
    "TopOfGroups",
    "Tucker",
    "Twin",
    "Use",
    "block_sparse",
    "dense",
    "is_leaf",
    "matmul",
    "nbytes",
    "nm_sparse",
    "pack",
    "rounds_inputs",
    "straight_through_inputs",
]
