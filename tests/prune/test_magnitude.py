import jax.numpy as jnp
import numpy as np

from spartax import prune
from spartax.records import Evidence


def test_is_the_absolute_value():
    score = prune.magnitude().score({"w": jnp.array([[-3.0, 2.0], [0.5, -0.0]])}, Evidence({}))
    np.testing.assert_array_equal(score["w"], [[3.0, 2.0], [0.5, 0.0]])


def test_is_never_ranked_in_half_precision():
    score = prune.magnitude().score({"w": jnp.ones((2, 2), jnp.bfloat16)}, Evidence({}))
    assert score["w"].dtype == jnp.float32
