"""A matrix of activations times a compressed matrix plus a low-rank one, `y = x W + (x U) V`: one file per path."""

from spartax.kernels.lowrank_residual_matmul.bases import Blocks, Codes, Dense, Groups
from spartax.kernels.lowrank_residual_matmul.choice import choose, choose_dense
from spartax.kernels.lowrank_residual_matmul.matmul import lowrank_residual_matmul

__all__ = ["Blocks", "Codes", "Dense", "Groups", "choose", "choose_dense", "lowrank_residual_matmul"]
