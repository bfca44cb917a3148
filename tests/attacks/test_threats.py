import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spartax.attacks import threats
from spartax.attacks.network import example_keys


def test_linf_projection_by_hand():
    project = threats.threat("linf", 0.1).project
    x0 = jnp.array([[0.5, 0.05, 0.98, 0.3]])
    x = jnp.array([[0.9, -0.5, 1.2, 0.35]])
    np.testing.assert_allclose(project(x, x0), [[0.6, 0.0, 1.0, 0.35]], atol=1e-7)


def test_l2_projection_scales_first_and_clips_second():
    project = threats.threat("l2", 1.0).project
    x0 = jnp.array([[0.5, 0.5], [0.9, 0.5], [0.5, 0.5]])
    x = jnp.array([[0.5 + 3.0, 0.5 + 4.0], [0.9 + 3.0, 0.5 - 4.0], [0.6, 0.4]])
    # Rows 0 and 1: (3, 4) / 5 has length one, then the box cuts it; row 2 is inside and stays.
    np.testing.assert_allclose(project(x, x0), [[1.0, 1.0], [1.0, 0.0], [0.6, 0.4]], atol=1e-6)
    np.testing.assert_allclose(threats.threat("l2", 0.25).project(x, x0)[0], [0.5 + 0.15, 0.5 + 0.2], atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_start_touches_the_sphere_and_stays_in_the_box(norm):
    x0 = jnp.concatenate([jnp.full((4, 3, 2), 0.5), jnp.zeros((4, 3, 2))])
    start = jax.jit(threats.threat(norm, 0.2).start)(example_keys(jax.random.key(0), jnp.arange(8)), x0)
    np.testing.assert_allclose(threats.lengths(start - x0, norm)[:4], 0.2, rtol=1e-5)
    assert len({float(v) for v in start[:4, 0, 0]}) == 4  # every example draws its own
    assert float(start[4:].min()) == 0.0
    assert float(start[4:].max()) <= 0.2 + 1e-6


def test_ascent_directions_by_hand():
    gradient = jnp.array([[3.0, 0.0, -4.0]])
    np.testing.assert_array_equal(threats.threat("linf", 1.0).ascent(gradient), [[1.0, 0.0, -1.0]])
    np.testing.assert_allclose(threats.threat("l2", 1.0).ascent(gradient), [[0.6, 0.0, -0.8]], atol=1e-7)
    np.testing.assert_array_equal(threats.threat("l2", 1.0).ascent(jnp.zeros((1, 3))), jnp.zeros((1, 3)))


def test_l1_ascent_moves_the_largest_percent_by_equal_amounts():
    pytest.importorskip("spartax.attacks.projections")
    gradient = jnp.arange(-150.0, 150.0)[None]
    direction = np.asarray(threats.threat("l1", 1.0).ascent(gradient))[0]
    expected = np.zeros(300)
    expected[[0, 1, 299]] = [-1 / 3, -1 / 3, 1 / 3]
    np.testing.assert_allclose(direction, expected, atol=1e-6)


def test_lengths_are_numpy_norms():
    delta = np.random.default_rng(0).normal(size=(5, 2, 3, 4)).astype(np.float32)
    for norm, order in (("linf", np.inf), ("l2", 2), ("l1", 1)):
        expected = np.linalg.norm(delta.reshape(5, -1), order, axis=1)
        np.testing.assert_allclose(threats.lengths(jnp.asarray(delta), norm), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("norm", "eps", "said"),
    [("l3", 0.1, "norm must be one of"), ("linf", -0.1, "eps must be in"), ("l2", float("nan"), "eps must be in")],
)
def test_bad_threats_are_refused(norm, eps, said):
    with pytest.raises(ValueError, match=said):
        threats.threat(norm, eps)
