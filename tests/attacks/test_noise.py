import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from spartax.attacks import noise
from spartax.attacks.network import example_keys

KEYS = example_keys(jax.random.key(3), jnp.arange(64))
LIKE = jnp.zeros((64, 32, 32, 3))


def test_uniform_is_uniform_and_every_example_has_its_own():
    drawn = np.asarray(jax.jit(noise.uniform)(KEYS, LIKE)).reshape(64, -1)
    assert drawn.min() > 0
    assert drawn.max() < 1
    assert stats.kstest(drawn.ravel(), "uniform").pvalue > 1e-3
    assert min(stats.kstest(row, "uniform").pvalue for row in drawn) > 1e-5
    # Correlations between examples, and between neighbors of one example, are those of independent numbers.
    between = np.corrcoef(drawn)[np.triu_indices(64, 1)] * np.sqrt(3072)
    assert stats.kstest(between, "norm").pvalue > 1e-3
    centered = drawn - 0.5
    for lag in (1, 2, 3, 32, 96):
        assert abs(np.mean(centered[:, lag:] * centered[:, :-lag]) * 12) < 5 / np.sqrt(drawn.size)


def test_normal_is_normal():
    drawn = np.asarray(jax.jit(noise.normal)(KEYS, LIKE)).ravel()
    assert np.isfinite(drawn).all()
    assert stats.kstest(drawn, "norm").pvalue > 1e-3


def test_draws_belong_to_the_key_and_not_to_the_batch():
    whole = noise.uniform(KEYS, LIKE)
    np.testing.assert_array_equal(noise.uniform(KEYS[jnp.array([5, 2])], LIKE[:2]), whole[jnp.array([5, 2])])
    other = noise.uniform(example_keys(jax.random.key(4), jnp.arange(64)), LIKE)
    assert not bool(jnp.any(jnp.all(other == whole, axis=(1, 2, 3))))
