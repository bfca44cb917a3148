import numpy as np
import pytest

from spartax import prune
from tests.oracles import golden


def test_golden():
    weights, given = golden.regression()
    published = -np.asarray(prune.grasp(1.0).score(weights, given)["w"][:, 0])
    expected = np.array(golden.NUMBERS["foresight_linear"]["grasp_minus_theta_Hg"])
    np.testing.assert_allclose(published, expected / abs(expected.sum()), rtol=1e-3, atol=1e-6)


def test_keeps_the_gradient_where_the_opposite_order_and_magnitude_lose_it():
    weights, given = golden.regression()
    ((x, y),) = given.objective.batches
    score = np.asarray(prune.grasp(1.0).score(weights, given)["w"])[:, 0]
    a, y = np.asarray(x), np.asarray(y)
    norm = lambda w: np.sum((a.T @ (a @ w - y) / len(y)) ** 2)  # noqa: E731
    after = [norm(np.asarray(weights["w"])[:, 0] * (np.arange(5) != i)) for i in range(5)]
    assert np.argmax(after) == np.argmin(score)
    assert after[np.argmin(score)] > max(after[np.argmax(score)], after[2])  # entry 2 is the smallest


def test_the_logits_are_divided_by_the_temperature():
    weights, given = golden.regression(temperature=200.0)
    hot, (_, plain) = prune.grasp().score(weights, given), golden.regression()
    np.testing.assert_allclose(hot["w"], prune.grasp(1.0).score(weights, plain)["w"], rtol=1e-3, atol=1e-5)


def test_a_bad_temperature_is_refused():
    with pytest.raises(ValueError, match="temperature"):
        prune.grasp(0.0)
