import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spartax.attacks import losses

LOGITS = jnp.array([[3.0, 1.0, 2.0, 0.0, -1.0], [0.0, 4.0, 1.0, 3.0, 2.0]])


def test_values_by_hand():
    y = jnp.array([0, 3])  # right with runner-up 2; wrong, class 1 wins
    log_sum = np.log(np.exp(np.asarray(LOGITS, np.float64)).sum(1))
    np.testing.assert_allclose(losses.cross_entropy(LOGITS, y), log_sum - [3.0, 3.0], rtol=1e-6)
    np.testing.assert_allclose(losses.margin(LOGITS, y), [-1.0, 1.0])
    np.testing.assert_allclose(losses.dlr(LOGITS, y), [-(3 - 2) / (3 - 1), -(3 - 4) / (4 - 2)], rtol=1e-6)


def test_targeted_values_by_hand():
    y, targets = jnp.array([0, 3]), jnp.array([4, 2])
    np.testing.assert_allclose(losses.margin_targeted(LOGITS, y, targets), [-4.0, -2.0])
    expected = [-(3 + 1) / (3 - 0.5 * (1 + 0)), -(3 - 1) / (4 - 0.5 * (2 + 1))]
    np.testing.assert_allclose(losses.dlr_targeted(LOGITS, y, targets), expected, rtol=1e-6)
    log_sum = np.log(np.exp(np.asarray(LOGITS, np.float64)).sum(1))
    np.testing.assert_allclose(losses.ce_targeted(LOGITS, y, targets), [-1.0, 1.0] - log_sum, rtol=1e-6)


def test_dlr_ignores_scale_and_shift_and_differentiates_its_denominator():
    y, targets = jnp.array([0, 3]), jnp.array([4, 2])
    moved = 7.0 * LOGITS - 3.0
    np.testing.assert_allclose(losses.dlr(moved, y), losses.dlr(LOGITS, y), rtol=1e-5)
    np.testing.assert_allclose(
        losses.dlr_targeted(moved, y, targets), losses.dlr_targeted(LOGITS, y, targets), rtol=1e-5
    )
    gradient = jax.grad(lambda z: losses.dlr(z, y).sum())(LOGITS)[0]
    # u = z0 - z2 = 1, v = z0 - z1 = 2, loss = -u / v.
    np.testing.assert_allclose(gradient, [-1 / 2 + 1 / 4, -1 / 4, 1 / 2, 0.0, 0.0], atol=1e-6)


def test_too_few_classes_are_named():
    with pytest.raises(ValueError, match="at least 3 classes; logits has 2"):
        losses.dlr(jnp.zeros((1, 2)), jnp.zeros(1, int))
    with pytest.raises(ValueError, match="at least 4 classes; logits has 3"):
        losses.dlr_targeted(jnp.zeros((1, 3)), jnp.zeros(1, int), jnp.ones(1, int))
    np.testing.assert_allclose(losses.margin(jnp.array([[1.0, 3.0]]), jnp.array([0])), [2.0])
