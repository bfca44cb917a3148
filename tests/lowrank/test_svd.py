import jax
import jax.numpy as jnp
import numpy as np

from spartax import lowrank
from tests.oracles import golden

MATRIX = np.random.default_rng(0).normal(size=(20, 12)).astype(np.float32)


def test_golden_rank_three():
    left, right = lowrank.svd()(jnp.asarray(golden.inputs()[0].T, jnp.float32), 3)
    np.testing.assert_allclose(golden.output_error(left @ right), golden.NUMBERS["svd_rank3_err"], rtol=1e-4)


def test_error_is_the_tail_of_the_spectrum():
    values = np.linalg.svd(MATRIX, compute_uv=False)
    for rank in (1, 5, 11):
        left, right = lowrank.svd()(MATRIX, rank)
        assert (left.shape, right.shape) == ((20, rank), (rank, 12))
        error = np.linalg.norm(MATRIX - left @ right)
        np.testing.assert_allclose(error, np.sqrt(np.sum(values[rank:] ** 2)), rtol=1e-4)


def test_both_factors_carry_the_root_of_the_singular_values():
    left, right = lowrank.svd()(MATRIX, 6)
    values = np.linalg.svd(MATRIX, compute_uv=False)[:6]
    np.testing.assert_allclose(left.T @ left, np.diag(values), atol=1e-4)
    np.testing.assert_allclose(right @ right.T, np.diag(values), atol=1e-4)


def test_half_precision_is_split_in_float32():
    left, right = lowrank.svd()(jnp.asarray(MATRIX, jnp.bfloat16), 12)
    assert left.dtype == right.dtype == jnp.float32
    np.testing.assert_allclose(left @ right, jnp.asarray(MATRIX, jnp.bfloat16).astype(jnp.float32), atol=1e-4)


def test_runs_under_vmap():
    lefts, rights = jax.vmap(lambda m: lowrank.svd()(m, 12))(jnp.stack([MATRIX, 2 * MATRIX]))
    np.testing.assert_allclose(lefts @ rights, np.stack([MATRIX, 2 * MATRIX]), atol=1e-4)
