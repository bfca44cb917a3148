import numpy as np

from spartax import lowrank
from tests.lowrank.splits import split
from tests.oracles import golden

MATRIX = np.random.default_rng(0).normal(size=(20, 12)).astype(np.float32)


def test_golden_rank_three():
    left, right = split(lowrank.svd(), golden.inputs()[0].T, 3)
    np.testing.assert_allclose(golden.output_error(left @ right), golden.NUMBERS["svd_rank3_err"], rtol=1e-4)


def test_error_is_the_tail_of_the_spectrum():
    values = np.linalg.svd(MATRIX, compute_uv=False)
    for rank in (1, 5, 11):
        left, right = split(lowrank.svd(), MATRIX, rank)
        assert (left.shape, right.shape) == ((20, rank), (rank, 12))
        error = np.linalg.norm(MATRIX - left @ right)
        np.testing.assert_allclose(error, np.sqrt(np.sum(values[rank:] ** 2)), rtol=1e-4)


def test_both_factors_carry_the_root_of_the_singular_values():
    left, right = split(lowrank.svd(), MATRIX, 6)
    values = np.linalg.svd(MATRIX, compute_uv=False)[:6]
    np.testing.assert_allclose(left.T @ left, np.diag(values), atol=1e-4)
    np.testing.assert_allclose(right @ right.T, np.diag(values), atol=1e-4)
