import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spartax as sx
from spartax import prune
from spartax.records import Evidence, Layout

GIVEN = Evidence({"w": Layout((0,), (1,))})
WEIGHT = jnp.array([[3.0, -0.5, 0.2], [0.0, -2.0, 0.04]])


def begun(weight=WEIGHT):
    return prune.twin_rep().init({"w": weight}, GIVEN)[0]


def test_the_network_begins_as_it_was_and_each_twin_is_the_gradient_of_the_other():
    leaf = begun()["w"]
    np.testing.assert_allclose(sx.dense(leaf), WEIGHT, rtol=1e-6)
    np.testing.assert_allclose(leaf.weight**2, jnp.abs(WEIGHT), rtol=1e-6)  # the pair of least decay
    gradient = jax.grad(lambda w: jnp.sum(sx.dense(w) * jnp.array([1.0, 2.0, 3.0])))(leaf)
    np.testing.assert_allclose(gradient.weight, leaf.twin * np.array([1, 2, 3]), rtol=1e-6)
    np.testing.assert_allclose(gradient.twin, leaf.weight * np.array([1, 2, 3]), rtol=1e-6)


def test_decay_of_the_twins_is_the_l1_penalty_of_their_product():
    """Descent on `1/2 |uv - t|^2 + a/2 (|u|^2 + |v|^2)` ends at the soft threshold of t."""
    decay = 0.3

    def descend(_, leaf):
        gradient = jax.grad(lambda w: 0.5 * jnp.sum((sx.dense(w) - WEIGHT) ** 2))(leaf)
        return jax.tree.map(lambda w, g: w - 0.1 * (g + decay * w), leaf, gradient)

    leaf = jax.jit(lambda leaf: jax.lax.fori_loop(0, 1000, descend, leaf))(begun()["w"])
    np.testing.assert_allclose(sx.dense(leaf), np.sign(WEIGHT) * np.maximum(np.abs(WEIGHT) - decay, 0), atol=1e-4)


def test_finish_leaves_the_products_also_under_a_mask():
    both = sx.chain(prune.twin_rep(), prune.prune(prune.magnitude(), 0.5))
    params, _ = both.init({"w": WEIGHT}, GIVEN)
    done = prune.finish(params)["w"]
    assert isinstance(done, sx.Masked)
    assert isinstance(done.weight, jax.Array)
    np.testing.assert_allclose(sx.dense(done), [[3, -0.5, 0], [0, -2, 0]], rtol=1e-6)
    np.testing.assert_allclose(prune.finish(begun())["w"], WEIGHT, rtol=1e-6)


def test_small_products_are_counted():
    transform = prune.twin_rep()
    _, _, info = transform.update(begun(jnp.array([[1.0, 9e-4, 0.0, 0.5]])), {}, GIVEN)
    assert info["w"]["small"] == 0.5


def test_what_is_compressed_already_is_refused():
    with pytest.raises(ValueError, match="w: twin_rep trains plain arrays; got a Twin"):
        prune.twin_rep().init(begun(), GIVEN)
    with pytest.raises(ValueError, match="w holds no Twin"):
        prune.twin_rep().update({"w": WEIGHT}, {}, GIVEN)
