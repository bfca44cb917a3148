"""What every factorization obeys."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spartax import catalog, lowrank

MATRIX = np.random.default_rng(0).normal(size=(24, 20)).astype(np.float32)


@pytest.fixture(params=catalog.names(lowrank.factorizations))
def factorization(request):
    return catalog.load(lowrank.factorizations, request.param)()


def error(factorization, rank):
    left, right = factorization(jnp.asarray(MATRIX), rank)
    assert (left.shape, right.shape) == ((24, rank), (rank, 20))
    return float(np.linalg.norm(MATRIX - np.asarray(left) @ np.asarray(right)) / np.linalg.norm(MATRIX))


def test_more_rank_is_less_error_and_full_rank_none(factorization):
    errors = [error(factorization, rank) for rank in (1, 10, 20)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-4


def test_a_matrix_of_that_rank_is_reproduced(factorization):
    low = MATRIX[:, :3] @ MATRIX[:3]
    left, right = factorization(jnp.asarray(low), 3)
    np.testing.assert_allclose(np.asarray(left) @ np.asarray(right), low, atol=1e-3)


def test_runs_under_jit_and_vmap(factorization):
    product = lambda m: jnp.matmul(*factorization(m, 4))  # noqa: E731
    both = jax.jit(jax.vmap(product))(np.stack([MATRIX, MATRIX[::-1]]))
    np.testing.assert_allclose(both[0], product(jnp.asarray(MATRIX)), atol=1e-3)
    np.testing.assert_allclose(both[1], product(jnp.asarray(MATRIX[::-1])), atol=1e-3)
