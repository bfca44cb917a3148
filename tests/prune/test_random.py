import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spartax import prune
from spartax.records import Evidence

WEIGHTS = {"a": jnp.ones((24, 20)), "b": jnp.ones((24, 20))}


def scores(weights=WEIGHTS, seed=0):
    return prune.random().score(weights, Evidence({}, key=jax.random.key(seed)))


def test_is_uniform_and_independent_of_the_weights():
    found = scores()
    for score in found.values():
        assert abs(float(jnp.mean(score)) - 0.5) < 0.04
        assert abs(float(jnp.var(score)) - 1 / 12) < 0.01
    assert abs(np.corrcoef(found["a"].ravel(), found["b"].ravel())[0, 1]) < 0.15
    np.testing.assert_array_equal(found["a"], scores({p: 7.0 * w for p, w in WEIGHTS.items()})["a"])


def test_draws_of_a_weight_depend_on_its_path_and_the_key_alone():
    np.testing.assert_array_equal(scores()["b"], scores({"b": WEIGHTS["b"]})["b"])
    assert not np.array_equal(scores()["b"], scores(seed=1)["b"])


def test_no_key_is_an_error():
    with pytest.raises(ValueError, match="key is needed"):
        prune.random().score(WEIGHTS, Evidence({}))
